#!/usr/bin/env bash
# Buys something from a gate with curl and `weir`, by hand. usage: hand.sh WEIR HOME URL
# Prints the page, then the receipt's JSON in a line of its own.
set -euo pipefail
weir=$1 home=$2 url=$3

# 1. The demand.
challenge=$(curl -s -o /dev/null -D - "$url" | tr -d '\r' | sed -n 's/^www-authenticate: //Ip')

# 2. The payment: on stdout is the credential, on stderr what is talk.
credential=$("$weir" --home "$home" pay --challenge "$challenge" --yes --json 2>/dev/null | sed -E 's/.*"credential":"([^"]*)".*/\1/')

# 3. The same request with the credential.
curl -sf -D headers.txt -H "Authorization: $credential" "$url"
echo
receipt=$(tr -d '\r' <headers.txt | sed -n 's/^payment-receipt: //Ip' | tr '_-' '/+')
while ((${#receipt} % 4)); do receipt+='='; done
base64 -d <<<"$receipt"
