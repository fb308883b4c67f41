"""Buys something from a gate with Python's standard library and `weir`, as the specification says (protocol/README.md, 17).

usage: hand.py WEIR HOME URL
Prints JSON: what the demand asks for, the answer's status and text, its receipt, and the same of a second request.
"""

import base64
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request


def base64url(text):
    """JSON in base64url without padding."""
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def get(url, headers):
    """Status, headers and text of an answer, whatever it is."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()


weir, home, url = sys.argv[1:]
status, headers, body = get(url, {})
assert status == 402, status
problem = json.loads(body)

# 1. The demand: parameters in quotes; `request` is base64url of JSON.
challenge = headers["WWW-Authenticate"]
parameters = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', challenge))
asked = base64url(parameters["request"])
assert parameters["method"] == "weir" and asked["methodDetails"]["scale"] == 9

# 2. The payment. The challenge is its idempotency key: asked again, nothing is paid twice.
command = [weir, "--home", home, "pay", "--challenge", challenge, "--max-price", "0.05", "--json"]
paid = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

# 3. The same request with the credential, and once more.
answers = []
for _ in range(2):
    status, headers, text = get(url, {"Authorization": paid["credential"]})
    answers.append({"status": status, "text": text, "receipt": base64url(headers["Payment-Receipt"])})
print(json.dumps({"problem": problem, "asked": asked, "paid": paid, "answers": answers}))
