#!/usr/bin/env python3
"""Recomputes every test vector of the Weir protocol from the text of ../README.md.

Python's standard library only. Section numbers refer to that page. Ends with 0 when everything agrees, with 1 at any
difference or unknown kind of case.
"""

import base64
import datetime
import functools
import hashlib
import hmac
import ipaddress
import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Malformed(Exception):
    """Bytes or text that must be refused."""


class Mismatch(Exception):
    """A vector that does not agree with the specification."""


def expect(made, kept, what):
    if made != kept:
        raise Mismatch(f"{what}:\n  made {made!r}\n  kept {kept!r}")


# --- 2: BIP-340 over secp256k1 --------------------------------------------------------------------------------------

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def sha256(data):
    return hashlib.sha256(data).digest()


def H(tag, message):
    tag_hash = sha256(tag.encode())
    return sha256(tag_hash + tag_hash + message)


# Jacobian points (x, y, z); z = 0 is infinity.
def double(p):
    x, y, z = p
    if z == 0:
        return p
    a, b = x * x % P, y * y % P
    c = b * b % P
    d = 2 * ((x + b) * (x + b) - a - c) % P
    e = 3 * a % P
    x3 = (e * e - 2 * d) % P
    return x3, (e * (d - x3) - 8 * c) % P, 2 * y * z % P


def add(p, q):
    if p[2] == 0:
        return q
    if q[2] == 0:
        return p
    z1, z2 = p[2] * p[2] % P, q[2] * q[2] % P
    u1, u2 = p[0] * z2 % P, q[0] * z1 % P
    s1, s2 = p[1] * z2 * q[2] % P, q[1] * z1 * p[2] % P
    if u1 == u2:
        return double(p) if s1 == s2 else (0, 1, 0)
    h, r = (u2 - u1) % P, (s2 - s1) % P
    h2 = h * h % P
    h3, v = h * h2 % P, u1 * h2 % P
    x = (r * r - h3 - 2 * v) % P
    return x, (r * (v - x) - s1 * h3) % P, h * p[2] * q[2] % P


def combine(a, p, b, q):
    """a·p + b·q, as an affine point or None."""
    p, q = (*p, 1), (*q, 1)
    both, result = add(p, q), (0, 1, 0)
    for bit in range(255, -1, -1):
        result = double(result)
        choice = (a >> bit & 1, b >> bit & 1)
        if choice != (0, 0):
            result = add(result, {(1, 0): p, (0, 1): q, (1, 1): both}[choice])
    if result[2] == 0:
        return None
    inverse = pow(result[2], -1, P)
    return result[0] * inverse**2 % P, result[1] * inverse**3 % P


def lift(x):
    """The point with this x and an even y, or None."""
    if x >= P:
        return None
    square = (pow(x, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if y * y % P != square:
        return None
    return x, y if y % 2 == 0 else P - y


def number(data):
    return int.from_bytes(data, "big")


def public_key(secret):
    d = number(secret)
    if not 0 < d < N:
        raise Malformed("not a secret key")
    return combine(d, G, 0, G)[0].to_bytes(32, "big")


def sign(secret, digest):
    d = number(secret)
    point = combine(d, G, 0, G)
    if point[1] % 2:
        d = N - d
    public = point[0].to_bytes(32, "big")
    masked = (d ^ number(H("BIP0340/aux", bytes(32)))).to_bytes(32, "big")
    k = number(H("BIP0340/nonce", masked + public + digest)) % N
    point = combine(k, G, 0, G)
    if point[1] % 2:
        k = N - k
    r = point[0].to_bytes(32, "big")
    e = number(H("BIP0340/challenge", r + public + digest)) % N
    return r + ((k + e * d) % N).to_bytes(32, "big")


@functools.lru_cache(maxsize=None)
def verify(public, digest, signature):
    point = lift(number(public))
    r, s = number(signature[:32]), number(signature[32:])
    if point is None or r >= P or s >= N:
        return False
    e = number(H("BIP0340/challenge", signature[:32] + public + digest)) % N
    result = combine(s, G, (N - e) % N, point)
    return result is not None and result[1] % 2 == 0 and result[0] == r


# --- 2: ids, addresses, amounts -------------------------------------------------------------------------------------

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def polymod(values):
    generators = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for at, generator in enumerate(generators):
            check ^= generator if top >> at & 1 else 0
    return check


def expanded(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def to_id(prefix, data):
    bits = number(data) << 4
    values = [bits >> 5 * at & 31 for at in range(51, -1, -1)]
    check = polymod(expanded(prefix) + values + [0] * 6) ^ 0x2BC830A3
    values += [check >> 5 * at & 31 for at in range(5, -1, -1)]
    return prefix + "1" + "".join(ALPHABET[value] for value in values)


def from_id(prefix, text):
    start = prefix + "1"
    if not text.startswith(start) or any(c not in ALPHABET for c in text[len(start):]):
        raise Malformed("not an id of this kind")
    values = [ALPHABET.index(c) for c in text[len(start):]]
    if len(values) != 58 or polymod(expanded(prefix) + values) != 0x2BC830A3:
        raise Malformed("length or checksum")
    bits = 0
    for value in values[:52]:
        bits = bits << 5 | value
    if bits & 15:
        raise Malformed("padding")
    return (bits >> 4).to_bytes(32, "big")


def from_address(text):
    match = re.fullmatch(r"weir://([^@]*)@(?:\[([^\]]*)\]|([A-Za-z0-9.-]{1,253})):([0-9]+)", text)
    if not match or int(match[4]) > 65535:
        raise Malformed("not an address")
    from_id("weirhub", match[1])
    host = match[3]
    if host is None:
        try:
            host = str(ipaddress.IPv6Address(match[2]))
        except ValueError as error:
            raise Malformed("not an IPv6 address") from error
    return match[1], host, int(match[4])


def from_units(text):
    match = re.fullmatch(r"([0-9]+)(?:\.([0-9]+))?", text)
    if not match:
        raise Malformed("not an amount")
    places = (match[2] or "").rstrip("0")
    nanos = int(match[1]) * 10**9 + int(places.ljust(9, "0"))
    if len(places) > 9 or nanos >= 2**64:
        raise Malformed("not an amount")
    return nanos


def to_units(nanos):
    places = f"{nanos % 10**9:09}".rstrip("0")
    return f"{nanos // 10**9}" + ("." + places if places else "")


def from_currency(text):
    if not re.fullmatch("[A-Z]{3}", text):
        raise Malformed("not a currency")
    return text.encode()


# --- 1, 5: types, and the two ways to lay them out -------------------------------------------------------------------


def varint(value):
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Malformed("bytes are missing")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self, bits):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift >= bits:
                raise Malformed("varint too long")
        if value >= 1 << bits or shift and byte == 0:
            raise Malformed("varint not minimal or past its type")
        return value


class Type:
    """A type of the specification: JSON value ↔ message bytes, and JSON value → preimage bytes."""

    def __init__(self, encode, decode, lay=None):
        self.encode, self.decode, self.lay = encode, decode, lay or encode


def integer(width):
    bits = 8 * width

    def lay(value):
        return value.to_bytes(width, "little")

    if width == 1:
        return Type(lay, lambda reader: reader.take(1)[0])

    def encode(value):
        lay(value)
        return varint(value)

    return Type(encode, lambda reader: reader.varint(bits), lay)


def fixed(count):
    def encode(value):
        data = bytes.fromhex(value)
        expect(len(data), count, "a fixed width")
        return data

    return Type(encode, lambda reader: reader.take(count).hex())


U8, U16, U32, U64 = integer(1), integer(2), integer(4), integer(8)
HASH, SIGNATURE, BLIND = fixed(32), fixed(64), fixed(16)
ACCOUNT = Type(lambda value: from_id("weir", value), lambda reader: to_id("weir", reader.take(32)))
HUB = Type(lambda value: from_id("weirhub", value), lambda reader: to_id("weirhub", reader.take(32)))
AMOUNT = Type(
    lambda value: varint(from_units(value)),
    lambda reader: to_units(reader.varint(64)),
    lambda value: from_units(value).to_bytes(8, "little"),
)


def read_currency(reader):
    try:
        letters = reader.take(3).decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("currency") from error
    from_currency(letters)
    return letters


CURRENCY = Type(from_currency, read_currency, lambda value: from_currency(value) + b"\0")


def read_flag(reader):
    byte = reader.take(1)[0]
    if byte > 1:
        raise Malformed("flag")
    return byte == 1


FLAG = Type(lambda value: bytes([value]), read_flag)


def read_text(reader):
    try:
        return reader.take(reader.varint(64)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("text") from error


TEXT = Type(
    lambda value: varint(len(value.encode())) + value.encode(),
    read_text,
    lambda value: len(value.encode()).to_bytes(2, "little") + value.encode(),
)


def read_mode(reader):
    mode = reader.take(1)[0]
    if mode > 2:
        raise Malformed("mode")
    return mode


MODE = Type(lambda value: bytes([value]), read_mode)


def option(of, absent=b""):
    def decode(reader):
        return of.decode(reader) if read_flag(reader) else None

    return Type(
        lambda value: b"\0" if value is None else b"\1" + of.encode(value),
        decode,
        lambda value: absent if value is None else of.lay(value),
    )


def array(of):
    def decode(reader):
        count = reader.varint(64)
        if count > len(reader.data):
            raise Malformed("a list longer than its message")
        return [of.decode(reader) for _ in range(count)]

    return Type(
        lambda value: varint(len(value)) + b"".join(map(of.encode, value)),
        decode,
        lambda value: len(value).to_bytes(4, "little") + b"".join(map(of.lay, value)),
    )


def struct(**fields):
    def over(how):
        def run(value):
            expect(sorted(value), sorted(fields), "the names of the fields")
            return b"".join(getattr(kind, how)(value[name]) for name, kind in fields.items())

        return run

    made = Type(
        over("encode"), lambda reader: {name: kind.decode(reader) for name, kind in fields.items()}, over("lay")
    )
    made.fields = fields
    return made


def pair(first, second):
    return Type(
        lambda value: first.encode(value[0]) + second.encode(value[1]),
        lambda reader: [first.decode(reader), second.decode(reader)],
    )


def choice(*variants):
    """An enum: names without fields, or (name, type)."""
    variants = [(variant, None) if isinstance(variant, str) else variant for variant in variants]
    names = [name for name, _ in variants]

    def encode(value):
        if isinstance(value, str):
            return varint(names.index(value))
        (name, inner), = value.items()
        return varint(names.index(name)) + variants[names.index(name)][1].encode(inner)

    def decode(reader):
        place = reader.varint(32)
        if place >= len(variants):
            raise Malformed("unknown variant")
        name, kind = variants[place]
        return name if kind is None else {name: kind.decode(reader)}

    return Type(encode, decode, lambda value: U16.lay(names.index(value)))


# --- 12: refusals ---------------------------------------------------------------------------------------------------

REJECTS = {
    1: ("Malformed", "give up"), 2: ("Unsupported", "give up"), 3: ("Unauthenticated", "first"),
    4: ("Busy", "retry"), 5: ("Stopped", "retry"), 6: ("Stale", "give up"), 7: ("UnknownAccount", "first"),
    8: ("NotApproved", "first"), 9: ("UnknownChannel", "give up"), 10: ("UnknownLane", "give up"),
    11: ("Closed", "give up"), 12: ("Revoked", "give up"), 13: ("Detached", "first"), 14: ("Conflict", "attach"),
    15: ("Sequence", "attach"), 16: ("Expired", "give up"), 17: ("Zero", "give up"), 18: ("WrongPayee", "give up"),
    19: ("UnknownPayee", "give up"), 20: ("Frozen", "give up"), 21: ("TooLarge", "give up"),
    22: ("Overflow", "give up"), 23: ("Limit", "give up"), 24: ("Capacity", "give up"), 25: ("Signature", "attach"),
    26: ("Insufficient", "first"), 27: ("Currency", "give up"), 28: ("Clock", "give up"), 29: ("Exists", "give up"),
    30: ("LanesFull", "give up"), 31: ("LaneNumber", "give up"), 32: ("Lower", "give up"),
    33: ("UnknownPayment", "give up"), 34: ("RefundAmount", "give up"), 35: ("RefundClosed", "give up"),
    36: ("Pruned", "give up"), 37: ("Iban", "give up"),
}
CODES = {name: code for code, (name, _) in REJECTS.items()}


def read_reject(reader):
    code = reader.varint(16)
    if code not in REJECTS:
        raise Malformed("unknown refusal")
    return REJECTS[code][0]


REJECT = Type(lambda name: varint(CODES[name]), read_reject)


def result(of):
    return choice(("Ok", of), ("Err", REJECT))


# --- 8: acts --------------------------------------------------------------------------------------------------------

ZEROS = bytes(32)
TERMS = struct(
    hub=HUB, account=ACCOUNT, scheme=U8, key=HASH, currency=CURRENCY, capacity=AMOUNT, opened_at=U64, expires_at=U64,
    renew=FLAG, salt=HASH,
)
GRANT = struct(
    channel=HASH, lane=U32, scheme=U8, key=HASH, mode=MODE, payee=option(ACCOUNT, ZEROS), limit=AMOUNT, period=U32,
    expires_at=U64,
)
POLICY = struct(
    open_registration=FLAG, refund_days=U32, payment_max=AMOUNT, payout_min=AMOUNT, fee_basis_points=U32,
    fee_per_payment=AMOUNT, fee_minimum=AMOUNT, approvals=U32, currencies=array(CURRENCY),
)
CERTIFICATE = struct(key=HASH, not_before=U64, not_after=U64)
VOID = struct(lane=HASH, head=HASH, sequence=U64, total=AMOUNT, void_through=U64)
CLOSE = struct(
    channel=HASH, cause=choice("Request", "Expiry", "Operator"), request=HASH, root=HASH, spent=AMOUNT,
    returned=AMOUNT,
)
# In the order of their numbers: word, tag, author, fields.
ACTS = [
    ("chain", "weir/chain", "hub", struct(previous_chain=U64, kept_number=U64, kept_id=HASH, cut=U64)),
    ("certificate", "weir/certificate", "identity", CERTIFICATE),
    ("policy", "weir/policy", "hub", POLICY),
    ("register", "weir/register", "account", struct(number=U64, account=ACCOUNT, name=TEXT, iban=TEXT)),
    ("approve", "weir/approve", "hub", struct(account=ACCOUNT)),
    ("freeze", "weir/freeze", "hub", struct(account=ACCOUNT, incoming=FLAG, outgoing=FLAG, reason=TEXT)),
    ("deposit", "weir/deposit", "hub", struct(
        account=option(ACCOUNT, ZEROS), currency=CURRENCY, amount=AMOUNT, connector=TEXT, bank_reference=TEXT)),
    ("open", "weir/channel", "account", TERMS),
    ("grant", "weir/lane", "channel", GRANT),
    ("revoke", "weir/revoke", "channel", struct(number=U64, channel=HASH, lane=U32)),
    ("amend", "weir/amend", "owner", struct(
        number=U64, channel=HASH, capacity=AMOUNT, expires_at=U64, renew=FLAG)),
    ("void", "weir/void", "hub", VOID),
    ("close_request", "weir/close-request", "channel or owner", struct(number=U64, channel=HASH)),
    ("close", "weir/close", "hub", CLOSE),
    ("roll", "weir/roll", "hub", struct(
        channel=HASH, roll=U64, root=HASH, spent=AMOUNT, capacity=AMOUNT, expires_at=U64)),
    ("refund", "weir/refund", "payee", struct(
        chain=U64, commit=U64, group=U32, leaf=U32, payment_id=HASH, refunded_total=AMOUNT)),
    ("withdraw", "weir/withdraw", "account", struct(
        number=U64, account=ACCOUNT, currency=CURRENCY, marked=AMOUNT)),
    ("cutoff", "weir/cutoff", "hub", struct(window=U64)),
    ("plan", "weir/plan", "operator or hub", struct(
        number=U64, operator=option(HASH, ZEROS), window=U64, currency=CURRENCY, payouts=U32, total=AMOUNT, root=HASH,
        file=HASH)),
    ("instruct", "weir/instruct", "hub", struct(window=U64, currency=CURRENCY, plan=HASH)),
    ("outcome", "weir/outcome", "hub", struct(
        window=U64, account=ACCOUNT, currency=CURRENCY, amount=AMOUNT, outcome=choice("Settled", "Returned", "Refused", "Confirmed"), reference=TEXT)),
    ("settled", "weir/settled", "hub", struct(window=U64)),
    ("debit", "weir/debit", "hub", struct(
        cause=choice("Charge", "Unknown"), currency=CURRENCY, amount=AMOUNT, connector=TEXT, bank_reference=TEXT)),
    ("allocate", "weir/allocate", "hub", struct(
        account=option(ACCOUNT, ZEROS), incoming=FLAG, currency=CURRENCY, amount=AMOUNT, connector=TEXT,
        bank_reference=TEXT)),
    ("statement", "weir/statement", "hub", struct(
        currency=CURRENCY, connector=TEXT, statement=TEXT, sequence=U64, opening_overdrawn=FLAG, opening=AMOUNT,
        closing_overdrawn=FLAG, closing=AMOUNT, closed_at=U64, entries=U32, file=HASH)),
    ("operator", "weir/operator", "operator or hub", struct(
        number=U64, by=option(HASH, ZEROS), key=HASH, stands=FLAG, name=TEXT)),
    ("approval", "weir/approval", "operator", struct(
        number=U64, operator=HASH, window=U64, currency=CURRENCY, plan=HASH, file=HASH)),
    ("abort", "weir/abort", "operator or hub", struct(
        number=U64, operator=option(HASH, ZEROS), window=U64, currency=CURRENCY, plan=HASH, reason=TEXT)),
    ("fees", "weir/fees", "operator or hub", struct(
        number=U64, operator=option(HASH, ZEROS), account=ACCOUNT, own=FLAG,
        schedule=struct(basis_points=U32, per_payment=AMOUNT, minimum=AMOUNT))),
    ("force_final", "weir/force-final", "operator or hub", struct(
        number=U64, operator=option(HASH, ZEROS), window=U64, account=option(ACCOUNT, ZEROS))),
    ("earnings", "weir/earnings", "account", struct(
        number=U64, account=ACCOUNT, currency=CURRENCY, becomes=choice("PayOut", "Net", "Keep"))),
    ("limits", "weir/limits", "hub", struct(
        account=option(ACCOUNT, ZEROS), payment_max=AMOUNT, balance_max=AMOUNT, day_max=AMOUNT, iban_wait_s=U32)),
    ("mandate", "weir/mandate", "account", struct(
        number=U64, account=ACCOUNT, scheme=choice("Core", "B2b"), mandate_id=TEXT, iban=TEXT, signed_at=U64,
        revoked=FLAG)),
    ("mandate_terms", "weir/mandate-terms", "hub", struct(
        account=ACCOUNT, mandate_id=TEXT, accepted=FLAG, at_once=AMOUNT, provisional_days=U32)),
    ("collect", "weir/collect", "hub", struct(
        collection=U64, account=ACCOUNT, mandate_id=TEXT, currency=CURRENCY, amount=AMOUNT, created_at=U64, due=U64,
        first=FLAG, file=HASH)),
    ("collected", "weir/collected", "hub", struct(
        collection=U64, account=ACCOUNT, currency=CURRENCY, amount=AMOUNT,
        word=choice("Booked", "Returned", "Refused"), reference=TEXT)),
    ("approve_iban", "weir/approve-iban", "operator", struct(
        number=U64, operator=HASH, account=ACCOUNT, iban=TEXT)),
    ("approve_collect", "weir/approve-collect", "operator", struct(
        number=U64, operator=HASH, approved=FLAG, collect=struct(
            collection=U64, account=ACCOUNT, mandate_id=TEXT, currency=CURRENCY, amount=AMOUNT, created_at=U64, due=U64,
            first=FLAG, file=HASH))),
]
ACT = choice(*[(word, fields) for word, _, _, fields in ACTS])
WORDS = [word for word, _, _, _ in ACTS]


def act_preimage(hub, act):
    (word, fields), = act.items()
    kind = ACTS[WORDS.index(word)][3]
    return (b"" if word in ("open", "grant") else HUB.lay(hub)) + kind.lay(fields)


def act_digest(hub, act):
    (word, _), = act.items()
    return H(ACTS[WORDS.index(word)][1], act_preimage(hub, act))


def act_item(hub, blind, act):
    (word, _), = act.items()
    return H("weir/act", blind + U16.lay(WORDS.index(word) + 1) + act_digest(hub, act))


def act_author(act):
    """Who signs: where an operator or the hub may, the key that it names decides."""
    (word, fields), = act.items()
    author = ACTS[WORDS.index(word)][2]
    if author == "operator or hub":
        return "operator" if fields.get("by", fields.get("operator")) else "hub"
    return author


def within_limits(act):
    (word, fields), = act.items()
    if word == "approve_collect":
        return within_limits({"collect": fields["collect"]})
    limits = {
        "register": {"name": 70, "iban": 34}, "freeze": {"reason": 140},
        "deposit": {"connector": 140, "bank_reference": 140}, "outcome": {"reference": 140},
        "debit": {"connector": 140, "bank_reference": 140}, "allocate": {"connector": 140, "bank_reference": 140},
        "statement": {"connector": 140, "statement": 140},
        "operator": {"name": 70}, "abort": {"reason": 140},
        "mandate": {"mandate_id": 35, "iban": 34}, "mandate_terms": {"mandate_id": 35},
        "collect": {"mandate_id": 35}, "collected": {"reference": 140},
        "approve_iban": {"iban": 34},
    }
    if word == "mandate" and not fields["mandate_id"] or word == "mandate_terms" and fields["provisional_days"] > 400:
        return False
    if word == "fees" and fields["schedule"]["basis_points"] > 10_000:
        return False
    if word == "policy" and len(fields["currencies"]) > 32 or word == "register" and not fields["name"]:
        return False
    return all(len(fields[name].encode()) <= most for name, most in limits.get(word, {}).items())


# --- 3: the other preimages -----------------------------------------------------------------------------------------

HEAD = struct(state=HASH, sequence=U64, total=AMOUNT, valid_until=U64)
COMMIT = struct(hub=HUB, chain=U64, number=U64, time=U64, history=HASH, items=U32, root=HASH)
ANY = Type(bytes.fromhex, None)
PREIMAGES = {
    "weir/node": struct(left=HASH, right=HASH),
    "weir/payment": struct(state=HASH, sequence=U64, amount=AMOUNT, payee=ACCOUNT, reference=HASH),
    "weir/head": struct(lane=HASH, **HEAD.fields),
    "weir/id": struct(lane=HASH, sequence=U64),
    "weir/receipt": struct(payment_id=HASH, payee=ACCOUNT, amount=AMOUNT, currency=CURRENCY, reference=HASH),
    "weir/group": struct(head=HASH, count=U32, leaves=HASH),
    "weir/act": struct(blind=BLIND, kind=U16, digest=HASH),
    "weir/blind": struct(secret=HASH, chain=U64, number=U64, index=U32),
    "weir/commit": COMMIT,
    "weir/channel": TERMS,
    "weir/lane": GRANT,
    "weir/tls": struct(hub=HUB, spki_sha256=HASH, not_after=U64),
    "weir/hello": struct(hub=HUB, key=HASH, scope=U16, binding=HASH),
    "weir/payout": struct(window=U64, account=ACCOUNT, currency=CURRENCY, amount=AMOUNT),
    "weir/reference": struct(challenge=ANY),
    "weir/resource": struct(request=ANY),
}
WIDTHS = {
    "weir/node": 64, "weir/payment": 112, "weir/head": 88, "weir/id": 40, "weir/receipt": 108, "weir/group": 68,
    "weir/act": 50, "weir/blind": 52, "weir/commit": 124, "weir/channel": 158, "weir/lane": 122, "weir/tls": 72,
    "weir/hello": 98, "weir/payout": 52,
}
TAGS = set(PREIMAGES) | {tag for _, tag, _, _ in ACTS}


def hashed(tag, **fields):
    preimage = PREIMAGES[tag].lay(fields)
    expect(len(preimage), WIDTHS[tag], f"width of `{tag}`")
    return H(tag, preimage)


# --- 6, 7, 9, 10, 11: messages --------------------------------------------------------------------------------------

CURSOR = struct(chain=U64, number=U64)
PATH = struct(index=U32, count=U32, hashes=array(HASH))
SIGNED_COMMIT = struct(commit=COMMIT, signature=SIGNATURE)
SIGNED_CERTIFICATE = struct(certificate=CERTIFICATE, signature=SIGNATURE)
ACT_PROOF = struct(commit=SIGNED_COMMIT, blind=BLIND, path=PATH)
ANSWER = struct(first_sequence=U64, through_sequence=U64, count=U32, leaves=HASH, commit=SIGNED_COMMIT, path=PATH)
PAYMENT = struct(payee=ACCOUNT, amount=AMOUNT, reference=HASH)
ATTACH = struct(lane=HASH, void_through=U64)
OPENING = choice(
    ("Control", struct(version=U16)), ("Lane", ATTACH), ("Credit", struct(account=ACCOUNT, after=CURSOR))
)
WELCOME = struct(
    version=U16, hub=HUB, certificate=SIGNED_CERTIFICATE, not_after=U64, signature=SIGNATURE, nonce=HASH, time=U64,
    newest=CURSOR,
)
SCOPE = choice(("Account", ACCOUNT), ("Channel", HASH), ("Lane", HASH))
SIGNED_ACT = struct(act=ACT, signature=SIGNATURE)
REQUEST = choice(
    ("Prove", struct(scope=SCOPE, key=HASH, signature=SIGNATURE)),
    ("Act", SIGNED_ACT),
    "Hub",
    ("Account", ACCOUNT),
    ("DepositInstructions", struct(account=ACCOUNT, currency=CURRENCY)),
    ("Channels", struct(account=ACCOUNT, after=option(HASH))),
    ("Channel", HASH),
    ("Lanes", struct(channel=HASH, **{"from": U32})),
    ("History", struct(lane=HASH, since=U64)),
    ("Statement", struct(account=ACCOUNT, after=CURSOR, skip=U32)),
    ("Commit", struct(number=U64)),
    ("Evidence", choice(
        ("Channel", HASH),
        ("Payment", struct(lane=HASH, sequence=U64)),
        ("Receipt", struct(commit=U64, group=U32, leaf=U32)),
        ("Payout", struct(account=ACCOUNT, window=U64, currency=CURRENCY)),
        ("Act", struct(account=ACCOUNT, commit=U64, item=U32)),
    )),
    ("WindowStatement", struct(account=ACCOUNT, window=option(U64), form=choice("Json", "Csv", "Html"))),
    ("Mandates", ACCOUNT),
)
BALANCE = struct(
    currency=CURRENCY, available=AMOUNT, locked=AMOUNT, earned=AMOUNT, payable=AMOUNT, marked=AMOUNT,
    in_transit=AMOUNT, provisional=AMOUNT,
)
ACCOUNT_INFO = struct(
    account=ACCOUNT, name=TEXT, iban=TEXT, approved=FLAG, frozen_incoming=FLAG, frozen_outgoing=FLAG, number=U64,
    balances=array(BALANCE),
)
CHANNEL_INFO = struct(
    channel=HASH, terms=TERMS, capacity=AMOUNT, expires_at=U64, renew=FLAG, spent=AMOUNT, reserved=AMOUNT, lanes=U32,
    rolls=U64, number=U64, closed=FLAG,
)
LANE_INFO = struct(lane=HASH, grant=GRANT, head=HEAD, void_through=U64, spent_in_period=AMOUNT, revoked=FLAG)
HISTORY_GROUP = struct(
    payments=array(pair(U64, PAYMENT)), head=HEAD, signature=SIGNATURE, answer=ANSWER, certificate=SIGNED_CERTIFICATE
)
STATEMENT_ITEM = choice(
    ("Earned", struct(
        group=U32, leaf=U32, payment_id=HASH, amount=AMOUNT, currency=CURRENCY, reference=HASH)),
    ("Paid", struct(channel=HASH, lane=U32, count=U32, amount=AMOUNT, currency=CURRENCY)),
    ("Act", ACT),
)
PLACE = struct(commit=U64, path=PATH)
ACT_PART = struct(act=ACT, signature=option(SIGNATURE), commit=U64, blind=BLIND, path=PATH)
CHANNEL_CLAIM = struct(
    channel=HASH, account=ACCOUNT, currency=CURRENCY, capacity=AMOUNT, expires_at=U64, renew=FLAG, amended=FLAG,
    rolls=U64, lanes=U32, revoked=U32, spent=AMOUNT, closed=FLAG, returned=AMOUNT,
)
LANE_PART = struct(
    grant=option(ACT_PART), revoke=option(ACT_PART), head=HEAD, signature=option(SIGNATURE),
    group=option(struct(count=U32, leaves=HASH, place=PLACE)),
)
RECEIPT_CLAIM = struct(
    payment_id=HASH, payee=ACCOUNT, amount=AMOUNT, currency=CURRENCY, reference=HASH, refunded=AMOUNT
)
PAYMENT_CLAIM = struct(receipt=RECEIPT_CLAIM, payer=ACCOUNT, channel=HASH, lane=U32, sequence=U64)
STAGES = choice("planned", "instructed", "confirmed", "settled", "refused", "returned")
PROOF = choice(
    ("channel", struct(
        claim=CHANNEL_CLAIM, open=ACT_PART, amendment=option(ACT_PART), roll=option(ACT_PART),
        request=option(ACT_PART), close=option(ACT_PART), lanes=array(LANE_PART),
    )),
    ("payment", struct(
        claim=PAYMENT_CLAIM, open=ACT_PART, grant=option(ACT_PART), before=HASH, payments=array(pair(U64, PAYMENT)),
        head=HEAD, signature=SIGNATURE, leaf=PATH, group=PLACE, refund=option(ACT_PART),
    )),
    ("receipt", struct(claim=RECEIPT_CLAIM, leaf=PATH, head=HASH, group=PLACE, refund=option(ACT_PART))),
    ("payout", struct(
        claim=struct(
            account=ACCOUNT, window=U64, amount=AMOUNT, currency=CURRENCY, end_to_end_id=TEXT, stage=STAGES,
            words=U32, file=HASH,
        ),
        registration=ACT_PART, cutoff=ACT_PART, plan=ACT_PART, payout=PATH, instruction=option(ACT_PART),
        outcomes=array(ACT_PART),
    )),
    ("act", struct(key=option(HASH), part=ACT_PART)),
)
EVIDENCE = struct(
    format=TEXT, hub=HUB, certificates=array(SIGNED_CERTIFICATE),
    commits=array(struct(signed=SIGNED_COMMIT, history=array(HASH))), proof=PROOF,
)
REPLY = choice(
    "Proven",
    ("Done", struct(act=ACT, proof=ACT_PROOF)),
    ("Hub", struct(policy=POLICY, time=U64, newest=CURSOR)),
    ("Account", ACCOUNT_INFO),
    ("DepositInstructions", struct(iban=TEXT, name=TEXT, bic=TEXT, reference=TEXT, currency=CURRENCY)),
    ("Channels", array(CHANNEL_INFO)),
    ("Channel", CHANNEL_INFO),
    ("Lanes", array(LANE_INFO)),
    ("History", option(HISTORY_GROUP)),
    ("Statement", struct(entries=array(struct(at=CURSOR, time=U64, what=STATEMENT_ITEM)), through=CURSOR, skip=U32)),
    ("Commit", struct(
        commit=SIGNED_COMMIT, certificate=SIGNED_CERTIFICATE, newest=SIGNED_COMMIT,
        newest_certificate=SIGNED_CERTIFICATE, path=array(HASH))),
    ("Evidence", EVIDENCE),
    ("WindowStatement", TEXT),
    ("Mandates", array(struct(
        mandate_id=TEXT, scheme=choice("Core", "B2b"), iban=TEXT, signed_at=U64,
        standing=choice("Waiting", "Accepted", "Ended"), at_once=AMOUNT, provisional_days=U32))),
)
RUN = struct(
    first_sequence=U64, payees=array(ACCOUNT), entries=array(struct(payee=U32, amount=AMOUNT, reference=HASH))
)
FRAME = struct(previous_sequence=U64, run=RUN, valid_until=U64, signature=SIGNATURE)
LANE_REQUEST = choice(("Frame", FRAME), ("Attach", ATTACH))
LANE_REPLY = choice(
    ("Attached", struct(void=VOID, head=HEAD, signature=option(SIGNATURE), proof=ACT_PROOF)),
    ("Taken", ANSWER),
    ("Refused", struct(reject=REJECT, fault=U64)),
    ("Closed", struct(close=CLOSE, proof=ACT_PROOF, head=HEAD, signature=option(SIGNATURE), path=PATH)),
)
CREDIT = struct(leaf=U32, payment_id=HASH, amount=AMOUNT, reference=HASH)
CREDIT_GROUP = struct(
    head=HASH, count=U32, currency=CURRENCY, credits=array(CREDIT), proof=array(HASH), path=PATH
)
CREDIT_MESSAGE = choice(
    ("Commit", struct(commit=SIGNED_COMMIT, certificate=SIGNED_CERTIFICATE)),
    ("Group", CREDIT_GROUP),
    ("Through", CURSOR),
    ("Refused", REJECT),
)
RECEIPT = struct(
    payment_id=HASH, leaf_path=PATH, head=HASH, group_path=PATH, chain=U64, number=U64, time=U64, history=HASH,
    signature=SIGNATURE,
)
TYPES = {
    "Opening": OPENING, "Welcome": WELCOME, "RequestMessage": struct(id=U64, request=REQUEST),
    "ReplyMessage": struct(id=U64, reply=result(REPLY)), "LaneRequest": LANE_REQUEST, "LaneReply": LANE_REPLY,
    "CreditMessage": CREDIT_MESSAGE, "Receipt": RECEIPT, "Act": ACT,
}
MAX_REQUEST, MAX_MESSAGE, MAX_RECEIPT_BYTES, MAX_PAYMENTS, MAX_SKIP = 16384, 196608, 904, 1024, 2**32
LIMITS = {"MAX_REQUEST": MAX_REQUEST, "MAX_MESSAGE": MAX_MESSAGE}


def decode(kind, body):
    reader = Reader(body)
    value = kind.decode(reader)
    if reader.at != len(body):
        raise Malformed("bytes after the end")
    return value


# --- 4: Merkle trees ------------------------------------------------------------------------------------------------


def node(left, right):
    return H("weir/node", left + right)


def below(count):
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def merkle_root(leaves):
    if not leaves:
        return ZEROS
    if len(leaves) == 1:
        return leaves[0]
    return node(merkle_root(leaves[:below(len(leaves))]), merkle_root(leaves[below(len(leaves)):]))


def following(hashes):
    if not hashes:
        raise Malformed("a hash is missing")
    return hashes.pop(0)


def path_root(leaf, path):
    hashes = [bytes.fromhex(one) for one in path["hashes"]]
    at, last, made = path["index"], path["count"] - 1, leaf
    if at > last:
        raise Malformed("index past the end")
    while last > 0:
        if at % 2:
            made = node(following(hashes), made)
        elif at < last:
            made = node(made, following(hashes))
        at, last = at // 2, last // 2
    if hashes:
        raise Malformed("a hash is left")
    return made


def multi_root(count, leaves, hashes):
    hashes = [bytes.fromhex(one) for one in hashes]
    indices = [index for index, _ in leaves]
    if not leaves or indices != sorted(set(indices)) or indices[-1] >= count:
        raise Malformed("leaves of a multiproof")

    def sub(start, end, leaves):
        if not leaves:
            return following(hashes)
        if end - start == 1:
            return leaves[0][1]
        middle = start + below(end - start)
        left = sub(start, middle, [leaf for leaf in leaves if leaf[0] < middle])
        return node(left, sub(middle, end, [leaf for leaf in leaves if leaf[0] >= middle]))

    made = sub(0, count, leaves)
    if hashes:
        raise Malformed("a hash is left")
    return made


def consistent(old, old_root, new, new_root, hashes):
    if old == 0 or old > new:
        return False
    if old == new:
        return not hashes and old_root == new_root
    hashes = list(hashes)
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at // 2, last // 2
    if old & old - 1 == 0:
        made_old = made_new = old_root
    elif hashes:
        made_old = made_new = hashes.pop(0)
    else:
        return False
    for one in hashes:
        if last == 0:
            return False
        if at % 2 or at == last:
            made_old, made_new = node(one, made_old), node(one, made_new)
            while at % 2 == 0 and at > 0:
                at, last = at // 2, last // 2
        else:
            made_new = node(made_new, one)
        at, last = at // 2, last // 2
    return last == 0 and made_old == old_root and made_new == new_root


# --- 10, 11: checks of proofs ---------------------------------------------------------------------------------------


def require(holds, what):
    if not holds:
        raise Malformed(what)


def signed_by(key, digest, signature):
    return verify(key, digest, bytes.fromhex(signature))


def check_certificate(hub, signed):
    digest = act_digest(hub, {"certificate": signed["certificate"]})
    require(signed_by(HUB.lay(hub), digest, signed["signature"]), "certificate")


def check_commit(hub, signed, certificate):
    commit, certificate = signed["commit"], certificate["certificate"]
    require(commit["hub"] == hub, "another hub")
    require(certificate["not_before"] <= commit["time"] < certificate["not_after"], "time")
    key = bytes.fromhex(certificate["key"])
    require(signed_by(key, hashed("weir/commit", **commit), signed["signature"]), "commit")


def check_included(signed, item, path):
    require(path["count"] == signed["commit"]["items"], "count of items")
    require(path_root(item, path).hex() == signed["commit"]["root"], "path")


def check_act_proof(hub, certificate, act, proof):
    check_certificate(hub, certificate)
    check_commit(hub, proof["commit"], certificate)
    check_included(proof["commit"], act_item(hub, bytes.fromhex(proof["blind"]), act), proof["path"])


def check_receipt(claim, certificate, receipt):
    check_certificate(claim["hub"], certificate)
    leaf = hashed(
        "weir/receipt", payment_id=receipt["payment_id"], currency=claim["currency"], **claim["payment"]
    )
    leaves = path_root(leaf, receipt["leaf_path"])
    item = hashed("weir/group", head=receipt["head"], count=receipt["leaf_path"]["count"], leaves=leaves.hex())
    commit = {
        "hub": claim["hub"], "chain": receipt["chain"], "number": receipt["number"], "time": receipt["time"],
        "history": receipt["history"], "items": receipt["group_path"]["count"],
        "root": path_root(item, receipt["group_path"]).hex(),
    }
    check_commit(claim["hub"], {"commit": commit, "signature": receipt["signature"]}, certificate)
    return hashed("weir/commit", **commit)


# --- 9: frames ------------------------------------------------------------------------------------------------------


def check_shape(run):
    count = len(run["entries"])
    require(1 <= count <= MAX_PAYMENTS, "count of payments")
    require(run["first_sequence"] + count - 1 < 2**64, "sequence")
    used = 0
    for entry in run["entries"]:
        require(entry["payee"] <= used, "order of payees")
        used = max(used, entry["payee"] + 1)
    require(used == len(run["payees"]), "a payee without a payment")


def payments_of(run):
    for at, entry in enumerate(run["entries"]):
        payee = run["payees"][entry["payee"]]
        yield run["first_sequence"] + at, dict(payee=payee, amount=entry["amount"], reference=entry["reference"])


def head_after(lane, head, payments, valid_until):
    """The head after these payments, and the states on the way."""
    state, sequence, total, states = head["state"], head["sequence"], from_units(head["total"]), []
    for sequence, payment in payments:
        state = hashed("weir/payment", state=state, sequence=sequence, **payment).hex()
        states.append(state)
        total += from_units(payment["amount"])
    return dict(state=state, sequence=sequence, total=to_units(total), valid_until=valid_until), states


def refuse_frame(facts, body):
    """The refusal of a frame and its fault, or None: section 12, "Precedence"."""
    grant, head, time = facts["grant"], facts["head"], facts["time"]
    lane = H("weir/lane", GRANT.lay(grant)).hex()
    try:
        frame = decode(LANE_REQUEST, body)["Frame"]
        run = frame["run"]
        check_shape(run)
    except Malformed:
        return "Malformed", 0
    floor = max(head["sequence"], facts["void_through"])
    first, until = run["first_sequence"], frame["valid_until"]
    rules = [
        ("Stopped", facts["stopped"]),
        ("Unauthenticated", not facts["proven"]),
        ("Detached", not facts["attached"]),
        ("Closed", facts["closed"]),
    ]
    for name, broken in rules:
        if broken:
            return name, 0
    rules = [
        ("Conflict", frame["previous_sequence"] != head["sequence"]),
        ("Sequence", first <= floor or first > floor + MAX_SKIP),
        ("Revoked", facts["revoked"]),
        ("Expired", min(grant["expires_at"], facts["channel_expires_at"]) <= time),
        ("Frozen", facts["frozen_outgoing"]),
        ("Expired", 0 < until <= time),
    ]
    for place, (name, broken) in enumerate(rules):
        if broken:
            return name, 0 if place in (2, 3, 4) else first
    total = from_units(head["total"])
    room = total + from_units(facts["room"])
    limit = from_units(grant["limit"])
    begun = from_units(facts["total_at_period_start"]) if grant["period"] else 0
    most = from_units(facts["payment_max"])
    for sequence, payment in payments_of(run):
        amount = from_units(payment["amount"])
        payee = facts["payees"].get(payment["payee"])
        total += amount
        rules = [
            ("Zero", amount == 0),
            ("WrongPayee", grant["payee"] not in (None, payment["payee"])),
            ("UnknownPayee", payee is None or not payee["approved"]),
            ("Frozen", payee is not None and payee["frozen_incoming"]),
            ("TooLarge", most and amount > most),
            ("Overflow", total >= 2**64),
            ("Limit", total - begun > limit),
            ("Capacity", total > room),
        ]
        for name, broken in rules:
            if broken:
                return name, sequence
    after, _ = head_after(lane, head, payments_of(run), until)
    if not signed_by(bytes.fromhex(grant["key"]), hashed("weir/head", lane=lane, **after), frame["signature"]):
        return "Signature", first
    return None


def valid_iban(text):
    if not re.fullmatch("[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", text):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def valid_key(text):
    return lift(int(text, 16)) is not None


def refuse_act(facts, body):
    """The refusal of an act, or None: section 12, "Precedence"."""
    try:
        signed = decode(SIGNED_ACT, body)
    except Malformed:
        return "Malformed"
    (word, act), = signed["act"].items()
    hub, time, policy = facts["hub"], facts["time"], facts["policy"]
    digest = act_digest(hub, signed["act"])
    if not within_limits(signed["act"]) or word == "open" and act["hub"] != hub:
        return "Malformed"
    if facts["stopped"]:
        return "Stopped"
    author = act_author(signed["act"])
    if author in ("hub", "identity", "operator") or act.get("scheme", 0) != 0 or act.get("mode") == 2:
        return "Unsupported"
    if word in ("open", "grant") and not valid_key(act["key"]):
        return "Malformed"
    if word == "grant" and (act["mode"] == 1 and act["period"] or act["payee"] == to_id("weir", ZEROS)):
        return "Malformed"
    channel = payment = None
    if "channel" in act:
        channel = facts["channels"].get(act["channel"])
        if channel is None:
            return "UnknownChannel"
    if word == "revoke" and act["lane"] >= channel["lanes"]:
        return "UnknownLane"
    if word == "refund":
        payment = facts["payments"].get(act["payment_id"])
        if payment is None:
            return "UnknownPayment"
    name = payment["payee"] if payment else channel["account"] if channel else act["account"]
    account = facts["accounts"].get(name)
    if account is None and word != "register":
        return "UnknownAccount"
    # Who may have signed it, and the last number taken from that key.
    keys = []
    if author in ("account", "owner", "payee", "channel or owner"):
        keys.append((ACCOUNT.lay(name), account["number"] if account else 0))
    if author in ("channel", "channel or owner"):
        keys.append((bytes.fromhex(channel["key"]), channel["number"]))
    numbers = [number for key, number in keys if signed_by(key, digest, signed["signature"])]
    if not numbers:
        return "Unauthenticated"
    if digest.hex() in facts["taken"]:
        return None
    if "number" in act and act["number"] <= numbers[0]:
        return "Stale"
    if channel and channel["closed"]:
        return "Closed"
    if word in ("open", "amend", "withdraw") and not account["approved"]:
        return "NotApproved"
    if word in ("open", "amend", "withdraw") and account["frozen_outgoing"]:
        return "Frozen"
    amount = {key: from_units(act[key]) for key in ("capacity", "limit", "marked", "refunded_total") if key in act}
    needed, have, rules = 0, "0", []
    if word == "register":
        rules = [("Iban", not valid_iban(act["iban"]))]
    elif word == "open":
        rules = [
            ("Currency", act["currency"] not in policy["currencies"]),
            ("Zero", amount["capacity"] == 0),
            ("Clock", abs(act["opened_at"] - time) > 600_000),
            ("Expired", act["expires_at"] <= time),
        ]
        needed, have = amount["capacity"], account["available"].get(act["currency"], "0")
    elif word == "grant":
        rules = [
            ("LanesFull", act["lane"] >= 1024),
            ("LaneNumber", act["lane"] != channel["lanes"]),
            ("Expired", min(act["expires_at"], channel["expires_at"]) <= time),
            ("Zero", act["mode"] == 1 and amount["limit"] == 0),
            ("Capacity", act["mode"] == 1 and amount["limit"] > from_units(channel["room"])),
        ]
    elif word == "revoke":
        rules = [("Revoked", act["lane"] in channel["revoked"])]
    elif word == "amend":
        before = from_units(channel["capacity"])
        rules = [("Lower", amount["capacity"] < before or act["expires_at"] < channel["expires_at"])]
        needed, have = amount["capacity"] - before, account["available"].get(channel["currency"], "0")
    elif word == "refund":
        before, paid = from_units(payment["refunded"]), from_units(payment["amount"])
        rules = [
            ("RefundClosed", time >= payment["time"] + policy["refund_days"] * 86_400_000),
            ("RefundAmount", not before <= amount["refunded_total"] <= paid or amount["refunded_total"] == 0),
        ]
        currency = payment["currency"]
        both = from_units(account["earned"].get(currency, "0")) + from_units(account["available"].get(currency, "0"))
        needed, have = amount["refunded_total"] - before, to_units(both)
    elif word == "withdraw":
        rules = [("Currency", act["currency"] not in policy["currencies"])]
        needed, have = amount["marked"], account["available"].get(act["currency"], "0")
    elif word == "earnings":
        rules = [("Currency", act["currency"] not in policy["currencies"])]
    for name, broken in rules:
        if broken:
            return name
    return "Insufficient" if needed > from_units(have) else None


# --- one function a kind of case ------------------------------------------------------------------------------------

KINDS = {}


def kind(function):
    KINDS[function.__name__] = function
    return function


def holds(case, run):
    """Whether `run` ends without a refusal must be what the case says."""
    try:
        made = run()
        valid = made is not False
    except Malformed:
        valid = False
    expect(valid, case["valid"], "whether it holds")
    return made if valid else None


@kind
def secret_key(case):
    public = holds(case, lambda: public_key(bytes.fromhex(case["secret"])))
    if public:
        expect(public.hex(), case["public"], "public key")


@kind
def public_key_case(case):
    holds(case, lambda: valid_key(case["public"]))


KINDS["public_key"] = KINDS.pop("public_key_case")


@kind
def signature(case):
    digest = bytes.fromhex(case["digest"])
    holds(case, lambda: signed_by(bytes.fromhex(case["public"]), digest, case["signature"]))
    if "secret" in case:
        expect(sign(bytes.fromhex(case["secret"]), digest).hex(), case["signature"], "signature")


@kind
def account_id(case, prefix="weir"):
    key = holds(case, lambda: from_id(prefix, case["text"]))
    if key is not None:
        expect(key.hex(), case["key"], "key")
        expect(to_id(prefix, key), case["text"], "text")


@kind
def hub_id(case):
    account_id(case, "weirhub")


@kind
def address(case):
    parts = holds(case, lambda: from_address(case["text"]))
    if parts:
        expect(parts, (case["hub"], case["host"], case["port"]), "parts")


@kind
def amount(case):
    nanos = holds(case, lambda: (from_units(case["text"]),))
    if nanos:
        expect((nanos[0], to_units(nanos[0])), (case["nanos"], case["shown"]), "amount")


@kind
def currency(case):
    letters = holds(case, lambda: from_currency(case["text"]))
    if letters:
        expect(CURRENCY.lay(case["text"]).hex(), case["preimage"], "preimage")


@kind
def tag(case):
    expect(case["tag"] in TAGS, True, "a known tag")
    expect(H(case["tag"], b"").hex(), case["hash_of_nothing"], "hash")


@kind
def hash(case):
    preimage = PREIMAGES[case["tag"]].lay(case["fields"])
    expect(preimage.hex(), case["preimage"], "preimage")
    expect(len(preimage), WIDTHS.get(case["tag"], len(preimage)), "width")
    expect(H(case["tag"], preimage).hex(), case["hash"], "hash")


@kind
def act(case):
    number = WORDS.index(case["word"])
    _, tag, _, _ = ACTS[number]
    author = act_author(case["act"])
    expect((number + 1, tag, author), (case["number"], case["tag"], case["author"]), "kind, tag, author")
    expect(act_preimage(case["hub"], case["act"]).hex(), case["preimage"], "preimage")
    digest = act_digest(case["hub"], case["act"])
    expect(digest.hex(), case["digest"], "digest")
    expect(ACT.encode(case["act"]).hex(), case["encoded"], "encoding")
    expect(decode(ACT, bytes.fromhex(case["encoded"])), case["act"], "decoding")
    expect(act_item(case["hub"], bytes.fromhex(case["blind"]), case["act"]).hex(), case["item"], "item")
    expect(within_limits(case["act"]), True, "limits")
    expect(case["signature"] is None, author == "hub", "a signature")
    if case["signature"]:
        expect(signed_by(bytes.fromhex(case["signer"]), digest, case["signature"]), True, "signature")


@kind
def tree(case):
    leaves = [sha256(at.to_bytes(4, "little")) for at in range(case["count"])]
    expect(merkle_root(leaves).hex(), case["root"], "root")


@kind
def root(case):
    expect(merkle_root([bytes.fromhex(leaf) for leaf in case["leaves"]]).hex(), case["root"], "root")


@kind
def path(case):
    holds(case, lambda: path_root(bytes.fromhex(case["leaf"]), case["path"]).hex() == case["root"])


@kind
def multiproof(case):
    leaves = [(index, bytes.fromhex(leaf)) for index, leaf in case["leaves"]]
    holds(case, lambda: multi_root(case["count"], leaves, case["hashes"]).hex() == case["root"])


@kind
def consistency(case):
    roots = [bytes.fromhex(case[name]) for name in ("old_root", "new_root")]
    hashes = [bytes.fromhex(one) for one in case["hashes"]]
    holds(case, lambda: consistent(case["old"], roots[0], case["new"], roots[1], hashes))


@kind
def group(case):
    lane = case["lane"]
    head, states = head_after(lane, case["before"], case["payments"], case["head"]["valid_until"])
    expect(states, case["states"], "states")
    expect(head, case["head"], "head")
    digest = hashed("weir/head", lane=lane, **head)
    expect(digest.hex(), case["digest"], "digest of the head")
    expect(signed_by(bytes.fromhex(case["key"]), digest, case["signature"]), True, "signature")
    frame = decode(LANE_REQUEST, bytes.fromhex(case["frame"]))["Frame"]
    check_shape(frame["run"])
    expect([list(one) for one in payments_of(frame["run"])], case["payments"], "payments of the frame")
    payees = list(dict.fromkeys(payment["payee"] for _, payment in case["payments"]))
    made = {
        "previous_sequence": case["before"]["sequence"],
        "run": {
            "first_sequence": case["payments"][0][0],
            "payees": payees,
            "entries": [
                dict(payee=payees.index(one["payee"]), amount=one["amount"], reference=one["reference"])
                for _, one in case["payments"]
            ],
        },
        "valid_until": head["valid_until"], "signature": case["signature"],
    }
    expect(LANE_REQUEST.encode({"Frame": made}).hex(), case["frame"], "frame")
    leaves = []
    for sequence, payment in case["payments"]:
        payment_id = hashed("weir/id", lane=lane, sequence=sequence).hex()
        leaves.append(hashed("weir/receipt", payment_id=payment_id, currency=case["currency"], **payment))
    expect([leaf.hex() for leaf in leaves], case["leaves"], "leaves")
    leaves_root = merkle_root(leaves).hex()
    expect(leaves_root, case["leaves_root"], "root of the leaves")
    item = hashed("weir/group", head=digest.hex(), count=len(leaves), leaves=leaves_root)
    expect(item.hex(), case["item"], "item")


@kind
def certificate(case):
    holds(case, lambda: check_certificate(case["hub"], case["certificate"]))


@kind
def commit(case):
    expect(hashed("weir/commit", **case["signed"]["commit"]).hex(), case["id"], "id")

    def run():
        check_certificate(case["hub"], case["certificate"])
        check_commit(case["hub"], case["signed"], case["certificate"])

    holds(case, run)


@kind
def answer(case):
    def run():
        answer = case["answer"]
        check_certificate(case["hub"], case["certificate"])
        check_commit(case["hub"], answer["commit"], case["certificate"])
        require(answer["through_sequence"] == case["sequence"], "sequence")
        item = hashed("weir/group", head=case["head"], count=answer["count"], leaves=answer["leaves"])
        check_included(answer["commit"], item, answer["path"])

    holds(case, run)


@kind
def act_proof(case):
    holds(case, lambda: check_act_proof(case["hub"], case["certificate"], case["act"], case["proof"]))


@kind
def attached(case):
    def run():
        attached, lane = case["attached"], case["lane"]
        void, head = attached["void"], attached["head"]
        check_act_proof(case["hub"], case["certificate"], {"void": void}, attached["proof"])
        digest = hashed("weir/head", lane=lane, **head)
        require(void["lane"] == lane and void["head"] == digest.hex(), "another head")
        require((void["sequence"], void["total"]) == (head["sequence"], head["total"]), "head")
        require(void["void_through"] >= case["asked"], "void_through")
        if head["sequence"] == 0:
            empty = dict(state=lane, sequence=0, total="0", valid_until=0)
            require(head == empty and attached["signature"] is None, "the empty head")
        else:
            require(attached["signature"] is not None, "no signature")
            require(signed_by(bytes.fromhex(case["key"]), digest, attached["signature"]), "signature")

    holds(case, run)


@kind
def receipt(case):
    body = bytes.fromhex(case["receipt"])
    expect(len(body), case["bytes"], "bytes")

    def run():
        require(len(body) <= MAX_RECEIPT_BYTES, "length")
        value = decode(RECEIPT, body)
        expect(RECEIPT.encode(value), body, "encoding")
        return check_receipt(case["claim"], case["certificate"], value)

    made = holds(case, run)
    expect(made.hex() if made else None, case["commit"], "commit")
    if case["name"] == "the largest":
        expect(len(body), MAX_RECEIPT_BYTES, "the largest size")


@kind
def receipt_file(case):
    def run():
        file = case["file"]
        require(file["format"] == "weir-receipt/1", "format")
        payment = {name: file[name] for name in ("payee", "amount", "reference")}
        claim = {"hub": file["hub"], "currency": file["currency"], "payment": payment}
        check_receipt(claim, file["certificate"], file["receipt"])

    holds(case, run)


@kind
def credit_group(case):
    body = bytes.fromhex(case["group"])
    expect(decode(CREDIT_GROUP, body), case["value"], "decoding")
    expect(CREDIT_GROUP.encode(case["value"]), body, "encoding")

    def run():
        group = case["value"]
        check_certificate(case["hub"], case["certificate"])
        check_commit(case["hub"], case["signed"], case["certificate"])
        leaves = []
        for one in group["credits"]:
            fields = {name: one[name] for name in ("payment_id", "amount", "reference")}
            leaf = hashed("weir/receipt", payee=case["payee"], currency=group["currency"], **fields)
            leaves.append((one["leaf"], leaf))
        leaves_root = multi_root(group["count"], leaves, group["proof"])
        item = hashed("weir/group", head=group["head"], count=group["count"], leaves=leaves_root.hex())
        check_included(case["signed"], item, group["path"])

    holds(case, run)


@kind
def welcome(case):
    body = bytes.fromhex(case["welcome"])
    expect(decode(WELCOME, body), case["value"], "decoding")
    expect(WELCOME.encode(case["value"]), body, "encoding")

    def run():
        welcome = case["value"]
        inner = welcome["certificate"]["certificate"]
        require(welcome["hub"] == case["expected"], "another hub")
        check_certificate(case["expected"], welcome["certificate"])
        require(case["now"] < min(welcome["not_after"], inner["not_after"]), "time")
        spki = sha256(bytes.fromhex(case["spki"])).hex()
        digest = hashed("weir/tls", hub=welcome["hub"], spki_sha256=spki, not_after=welcome["not_after"])
        require(signed_by(bytes.fromhex(inner["key"]), digest, welcome["signature"]), "TLS key")

    holds(case, run)


@kind
def hello(case):
    scope = {"Account": 1, "Channel": 2, "Lane": 3}[next(iter(case["scope"]))]
    binding = sha256(bytes.fromhex(case["spki"]) + bytes.fromhex(case["nonce"])).hex()
    digest = hashed("weir/hello", hub=case["hub"], key=case["key"], scope=scope, binding=binding)
    expect(digest.hex(), case["digest"], "digest")
    holds(case, lambda: signed_by(bytes.fromhex(case["key"]), digest, case["signature"]))


@kind
def message(case):
    data, kind = bytes.fromhex(case["bytes"]), TYPES[case["type"]]
    expect(int.from_bytes(data[:4], "little"), len(data) - 4, "length")
    limit = MAX_REQUEST if case["type"] in ("Opening", "RequestMessage") else MAX_MESSAGE
    expect(len(data) - 4 <= limit, True, "limit")
    expect(decode(kind, data[4:]), case["value"], "decoding")
    expect(kind.encode(case["value"]).hex(), data[4:].hex(), "encoding")


@kind
def malformed(case):
    try:
        value = decode(TYPES[case["type"]], bytes.fromhex(case["body"]))
    except Malformed:
        return
    raise Mismatch(f"was decoded: {value!r}")


@kind
def length(case):
    prefix = int.from_bytes(bytes.fromhex(case["prefix"]), "little")
    holds(case, lambda: prefix <= LIMITS[case["limit"]])


@kind
def frame_shape(case):
    body = b"".join(bytes.fromhex(piece["hex"]) * piece["times"] for piece in case["pieces"])
    frame = decode(LANE_REQUEST, body)
    expect(LANE_REQUEST.encode(frame), body, "encoding")
    holds(case, lambda: check_shape(frame["Frame"]["run"]))


@kind
def reject(case):
    expect(REJECTS.get(case["code"]), (case["name"], case["reaction"]), "name and reaction")


@kind
def period(case):
    step = 1000 * case["period"]
    k = max(0, case["time"] - case["opened_at"]) // step
    expect(k, case["k"], "period")
    expect(case["opened_at"] + k * step, case["begins"], "its begin")


FACTS = {}


@kind
def facts(case):
    FACTS[case["name"]] = case["facts"]


def facts_of(case):
    return {**FACTS[case["facts"]["of"]], **case["facts"]["but"]}


@kind
def frame_rule(case):
    made = refuse_frame(facts_of(case), bytes.fromhex(case["frame"]))
    expect(made and {"reject": made[0], "fault": made[1]}, case["expected"], "refusal")


@kind
def act_rule(case):
    body = bytes.fromhex(case["act"])
    expect(decode(SIGNED_ACT, body), case["value"], "decoding")
    expect(refuse_act(facts_of(case), body), case["expected"], "refusal")


# --- 16: evidence ----------------------------------------------------------------------------------------------------

def after(part):
    return (part["commit"], part["path"]["index"])


class Checker:
    """The commits of a file, checked, and which of them were named."""

    def __init__(self, file):
        self.hub, self.commits, self.used = file["hub"], {}, set()
        starts = [one["certificate"]["not_before"] for one in file["certificates"]]
        require(starts == sorted(starts), "certificates in order")
        for one in file["certificates"]:
            check_certificate(self.hub, one)
        newest, covering, last = file["commits"][-1]["signed"]["commit"], set(), (0, 0, 0)
        for placed in file["commits"]:
            commit = placed["signed"]["commit"]
            this = (commit["number"], commit["time"], commit["chain"])
            require(this[0] > last[0] and this[1] >= last[1] and this[2] >= last[2], "commits in order")
            last = this
            at = max(place for place, start in enumerate(starts) if start <= commit["time"])
            covering.add(at)
            check_commit(self.hub, placed["signed"], file["certificates"][at])
            if commit["number"] == newest["number"]:
                require(not placed["history"], "the newest has no path")
            else:
                path = dict(index=commit["number"] - 1, count=newest["number"] - 1, hashes=placed["history"])
                found = path_root(hashed("weir/commit", **commit), path)
                require(found is not None and found.hex() == newest["history"], "history")
            self.commits[commit["number"]] = placed["signed"]
        require(len(covering) == len(file["certificates"]), "each certificate is needed")
        self.newest = newest["number"]

    def item(self, item, place):
        self.used.add(place["commit"])
        require(place["commit"] in self.commits, "a commit")
        check_included(self.commits[place["commit"]], item, place["path"])

    def act(self, part, word, *keys):
        require(list(part["act"]) == [word], "another act")
        self.item(act_item(self.hub, bytes.fromhex(part["blind"]), part["act"]), part)
        if keys:
            digest = act_digest(self.hub, part["act"])
            require(part["signature"] is not None, "a signature")
            require(any(signed_by(key, digest, part["signature"]) for key in keys), "signature")
        else:
            require(part["signature"] is None, "the hub's own acts have no signature")
        return part["act"][word]


def account_key(text):
    return from_id("weir", text)


def lane_zero(terms, channel):
    return dict(
        channel=channel, lane=0, scheme=terms["scheme"], key=terms["key"], mode=0, payee=None,
        limit=to_units(2**64 - 1), period=0, expires_at=2**64 - 1,
    )


def taken(checker, claim, leaf, head, group):
    fields = {name: claim[name] for name in ("payment_id", "payee", "amount", "currency", "reference")}
    leaves = path_root(hashed("weir/receipt", **fields), leaf).hex()
    checker.item(hashed("weir/group", head=head, count=leaf["count"], leaves=leaves), group)


def check_refund(checker, claim, part, group, leaf):
    if part is None:
        return require(from_units(claim["refunded"]) == 0, "the refund is missing")
    refund = checker.act(part, "refund", account_key(claim["payee"]))
    paid = checker.commits[group["commit"]]["commit"]
    place = (paid["chain"], paid["number"], group["path"]["index"], leaf["index"], claim["payment_id"])
    require((refund["chain"], refund["commit"], refund["group"], refund["leaf"], refund["payment_id"]) == place, "place")
    require(refund["refunded_total"] == claim["refunded"], "amount")
    require(from_units(claim["refunded"]) <= from_units(claim["amount"]), "more than was paid")
    require(after(part) > after(group), "order")


def prove_receipt(checker, proof):
    claim = proof["claim"]
    taken(checker, claim, proof["leaf"], proof["head"], proof["group"])
    check_refund(checker, claim, proof["refund"], proof["group"], proof["leaf"])
    return proof["group"]["commit"]


def prove_payment(checker, proof):
    claim = proof["claim"]
    receipt = claim["receipt"]
    terms = checker.act(proof["open"], "open", account_key(proof["open"]["act"]["open"]["account"]))
    channel = hashed("weir/channel", **terms).hex()
    made = (terms["hub"], terms["account"], channel, terms["currency"])
    require(made == (checker.hub, claim["payer"], claim["channel"], receipt["currency"]), "channel")
    grant = lane_zero(terms, channel)
    if proof["grant"] is not None:
        grant = checker.act(proof["grant"], "grant", bytes.fromhex(terms["key"]))
        require(grant["lane"] > 0 and after(proof["open"]) < after(proof["grant"]) < after(proof["group"]), "grant")
    require((grant["channel"], grant["lane"]) == (channel, claim["lane"]), "lane")
    require(after(proof["open"]) < after(proof["group"]), "order")
    lane = hashed("weir/lane", **grant).hex()
    sequence, first = proof["payments"][0]
    require(sequence == claim["sequence"], "sequence")
    require(all(first[name] == receipt[name] for name in ("payee", "amount", "reference")), "payment")
    require(hashed("weir/id", lane=lane, sequence=sequence).hex() == receipt["payment_id"], "payment id")
    require(len(proof["payments"]) == proof["leaf"]["count"] - proof["leaf"]["index"] <= 1024, "count")
    sequences = [sequence for sequence, _ in proof["payments"]]
    require(all(a < b for a, b in zip([0] + sequences, sequences)), "sequences")
    state, total = proof["before"], 0
    for sequence, payment in proof["payments"]:
        state = hashed("weir/payment", state=state, sequence=sequence, **payment).hex()
        total += from_units(payment["amount"])
    head = proof["head"]
    require((state, sequences[-1]) == (head["state"], head["sequence"]), "head")
    require(total <= from_units(head["total"]), "total")
    digest = hashed("weir/head", lane=lane, **head)
    require(signed_by(bytes.fromhex(grant["key"]), digest, proof["signature"]), "signature")
    taken(checker, receipt, proof["leaf"], digest.hex(), proof["group"])
    check_refund(checker, receipt, proof["refund"], proof["group"], proof["leaf"])
    return proof["group"]["commit"]


def prove_channel(checker, proof):
    claim, end = proof["claim"], (2**64, 0)
    account = account_key(proof["open"]["act"]["open"]["account"])
    terms = checker.act(proof["open"], "open", account)
    require(terms["hub"] == checker.hub, "hub")
    channel, last = hashed("weir/channel", **terms).hex(), after(proof["open"])
    capacity, expires_at, renew, rolls = terms["capacity"], terms["expires_at"], terms["renew"], 0
    if proof["close"] is not None:
        end = after(proof["close"])
    amended = proof["amendment"]
    for part in sorted((part for part in (amended, proof["roll"]) if part is not None), key=after):
        require(last < after(part) < end, "order")
        last = after(part)
        if part is amended:
            amend = checker.act(part, "amend", account)
            require(amend["channel"] == channel, "amendment")
            capacity, expires_at, renew = amend["capacity"], amend["expires_at"], amend["renew"]
        else:
            roll = checker.act(part, "roll")
            require(roll["channel"] == channel, "roll")
            if amended is None or after(amended) < after(part):
                require(roll["capacity"] == capacity, "capacity of the roll")
            expires_at, rolls = roll["expires_at"], roll["roll"]
    require(last < end, "order")
    key, spent, heads, newest = bytes.fromhex(terms["key"]), 0, [], last[0]
    for number, part in enumerate(proof["lanes"]):
        grant = lane_zero(terms, channel)
        require((part["grant"] is None) == (number == 0), "grant")
        if number:
            grant = checker.act(part["grant"], "grant", key)
            require(after(part["grant"]) < end, "order")
        require((grant["channel"], grant["lane"]) == (channel, number), "lane")
        if part["revoke"] is not None:
            revoke = checker.act(part["revoke"], "revoke", key)
            require((revoke["channel"], revoke["lane"]) == (channel, number) and after(part["revoke"]) < end, "revoke")
            newest = max(newest, part["revoke"]["commit"])
        lane = hashed("weir/lane", **grant).hex()
        head, group = part["head"], part["group"]
        digest = hashed("weir/head", lane=lane, **head)
        if part["signature"] is None:
            require(group is None and head == dict(state=lane, sequence=0, total="0", valid_until=0), "empty head")
        else:
            require(signed_by(bytes.fromhex(grant["key"]), digest, part["signature"]), "signature")
            item = hashed("weir/group", head=digest.hex(), count=group["count"], leaves=group["leaves"])
            checker.item(item, group["place"])
            require(after(group["place"]) < end, "order")
            newest = max(newest, group["place"]["commit"])
        spent += from_units(head["total"])
        heads.append(digest)
    require(heads and spent <= from_units(capacity), "capacity")
    returned = from_units(capacity) - spent if proof["close"] is not None else 0
    expect(claim, dict(
        channel=channel, account=terms["account"], currency=terms["currency"], capacity=capacity,
        expires_at=expires_at, renew=renew, amended=amended is not None, rolls=rolls,
        lanes=len(heads),
        revoked=sum(part["revoke"] is not None for part in proof["lanes"]), spent=to_units(spent),
        closed=proof["close"] is not None, returned=to_units(returned),
    ), "claim")
    if proof["close"] is None:
        require(proof["request"] is None, "a request without a close")
        return newest
    close, asked = checker.act(proof["close"], "close"), ZEROS.hex()
    if proof["request"] is not None:
        request = checker.act(proof["request"], "close_request", key, account)
        require(request["channel"] == channel and after(proof["request"]) < end, "request")
        asked = act_digest(checker.hub, proof["request"]["act"]).hex()
    require((close["cause"] == "Request") == (proof["request"] is not None), "cause")
    made = (close["channel"], close["request"], close["root"], close["spent"], close["returned"])
    require(made == (channel, asked, merkle_root(heads).hex(), claim["spent"], claim["returned"]), "close")
    return proof["close"]["commit"]


def prove_payout(checker, proof):
    claim = proof["claim"]
    account, window = account_key(claim["account"]), claim["window"]
    registration = checker.act(proof["registration"], "register", account)
    cutoff = checker.act(proof["cutoff"], "cutoff")
    planner = proof["plan"]["act"]["plan"]["operator"]
    plan = checker.act(proof["plan"], "plan", *([] if planner is None else [bytes.fromhex(planner)]))
    require(registration["account"] == claim["account"] and cutoff["window"] == window, "window")
    require((plan["window"], plan["currency"], plan["file"]) == (window, claim["currency"], claim["file"]), "plan")
    require(claim["end_to_end_id"] == f"W{window}-{account[:11].hex()}", "end-to-end id")
    require(after(proof["plan"]) > max(after(proof["cutoff"]), after(proof["registration"])), "order")
    fields = {name: claim[name] for name in ("window", "account", "currency", "amount")}
    require(proof["payout"]["count"] == plan["payouts"], "count")
    require(path_root(hashed("weir/payout", **fields), proof["payout"]).hex() == plan["root"], "payout")
    stage, last = "planned", after(proof["plan"])
    if proof["instruction"] is not None:
        instruct = checker.act(proof["instruction"], "instruct")
        digest = act_digest(checker.hub, proof["plan"]["act"]).hex()
        made = (instruct["window"], instruct["currency"], instruct["plan"])
        require(made == (window, claim["currency"], digest) and after(proof["instruction"]) > last, "instruction")
        stage, last = "instructed", after(proof["instruction"])
    for part in proof["outcomes"]:
        outcome = checker.act(part, "outcome")
        require({name: outcome[name] for name in fields} == fields and after(part) > last, "outcome")
        require(stage != "planned", "instructed first")
        stage, last = outcome["outcome"].lower(), after(part)
    require(len(proof["outcomes"]) == claim["words"], "words")
    require(stage == claim["stage"], "stage")
    return last[0]


def prove_act(checker, proof):
    (word, fields), = proof["part"]["act"].items()
    author, key = ACTS[WORDS.index(word)][2], proof["key"]
    expected = {"hub": None, "identity": HUB.lay(checker.hub).hex()}.get(author, key)
    if author == "account":
        expected = account_key(fields["account"]).hex()
    if author.startswith("operator"):
        expected = fields.get("operator", fields.get("by"))
    require(key == expected and (key is None) == (author == "hub" or author == "operator or hub" and expected is None), "key")
    checker.act(proof["part"], word, *([] if key is None else [bytes.fromhex(key)]))
    return proof["part"]["commit"]


PROVE = {
    "channel": prove_channel, "payment": prove_payment, "receipt": prove_receipt, "payout": prove_payout,
    "act": prove_act,
}


def check_evidence(file):
    require(file["format"] == "weir-evidence/1", "format")
    reader = Reader(EVIDENCE.encode(file))
    require(EVIDENCE.decode(reader) == file, "the one form")
    checker = Checker(file)
    (name, proof), = file["proof"].items()
    commit = PROVE[name](checker, proof)
    require(set(checker.commits) - {checker.newest} <= checker.used, "each commit is needed")
    return {"kind_of_claim": name, "commit": commit, "newest": checker.newest}


EVIDENCE_FILES = {}


@kind
def evidence(case):
    EVIDENCE_FILES[case["name"]] = case["file"]
    for name, made in holds(case, lambda: check_evidence(case["file"])).items():
        expect(made, case[name], name)


@kind
def evidence_change(case):
    file = json.loads(json.dumps(EVIDENCE_FILES[case["of"]]))
    change = case["change"]
    *way, last = (change.get("set") or change["drop"])[1:].split("/")
    at = file
    for step in way:
        at = at[int(step) if isinstance(at, list) else step]
    last = int(last) if isinstance(at, list) else last
    if "set" in change:
        at[last] = change["to"]
    else:
        del at[last]
    try:
        check_evidence(file)
    except Exception:
        return
    raise Mismatch("was accepted")


# --- 17: HTTP --------------------------------------------------------------------------------------------------------

MAX_CREDENTIAL_BYTES, MAX_CHALLENGE_BYTES = 4096, 2048
HTTP_CHALLENGE = ("id", "realm", "method", "intent", "request")
HTTP_OPTIONAL = ("expires", "digest", "header", "opaque")


class Refused(Malformed):
    """A credential that does not count, and the problem that it is."""


def demand(condition, problem):
    if not condition:
        raise Refused(problem)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text):
    text = re.sub("={1,2}$", "", text) if isinstance(text, str) else ""
    if not re.fullmatch("[A-Za-z0-9_-]+", text) or len(text) % 4 == 1:
        raise Malformed("base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise Malformed("bits beyond the last byte")
    return data


def from_json(data):
    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise Malformed("a name twice")
        return dict(pairs)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except ValueError as error:
        raise Malformed("not JSON") from error


def canonical(value):
    """RFC 8785, for ASCII names and whole numbers."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def fields(value, must, may=()):
    """The named members of an object, of their types; others are passed over, and null is as good as absent."""
    if not isinstance(value, dict):
        raise Malformed("not an object")
    made = {name: value.get(name) for name in (*must, *may)}
    for name, kind in {**must, **dict(may)}.items():
        if made[name] is None and name in may:
            del made[name]
        elif type(made[name]) is not kind:
            raise Malformed(f"`{name}`")
    return made


def from_nanos(text):
    if not isinstance(text, str) or not re.fullmatch("0|[1-9][0-9]{0,19}", text) or int(text) >= 2**64:
        raise Malformed("nanos")
    return int(text)


def from_rfc3339(text):
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", text)
    try:
        moment = datetime.datetime.fromisoformat(match[1] + "+00:00") if match else None
    except ValueError:
        moment = None
    if moment is None:
        raise Malformed("not a time")
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return since // datetime.timedelta(seconds=1) * 1000 + int((match[2] or "").ljust(3, "0")[:3])


def to_rfc3339(ms):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03}Z"


def challenge_id(secret, challenge):
    slots = [challenge["realm"], challenge["method"], challenge["intent"], challenge["request"]]
    slots += [challenge.get("expires", ""), challenge.get("digest", "")]
    slots += [challenge["header"]] if "header" in challenge else []
    slots += [challenge.get("opaque", "")]
    return base64url(hmac.new(secret, "|".join(slots).encode(), "sha256").digest())


def reference_of(challenge):
    return H("weir/reference", challenge["id"].encode()).hex()


def from_charge(request):
    """`request`: what the method asks with."""
    must = {"amount": str, "currency": str, "methodDetails": dict, "recipient": str}
    made = fields(from_json(from_base64url(request)), must, {"description": str})
    details = fields(
        made["methodDetails"], {"hub": str, "scale": int}, {"issuedAt": int, "metered": bool, "resource": str}
    )
    made["nanos"] = from_nanos(made["amount"])
    from_currency(made["currency"])
    from_id("weir", made["recipient"])
    from_id("weirhub", details["hub"])
    if "resource" in details and len(from_base64url(details["resource"])) != 16 or details["scale"] != 9:
        raise Malformed("details")
    return made, details


def to_requirements(challenge):
    request, details = from_charge(challenge["request"])
    lasts = (from_rfc3339(challenge["expires"]) - details["issuedAt"]) // 1000
    extra = {name: challenge[name] for name in ("id", "realm", "expires", "opaque", "header") if name in challenge}
    extra.update({name: request[name] for name in ("description",) if name in request})
    extra.update({name: details[name] for name in ("issuedAt", "metered", "resource", "scale") if name in details})
    return {
        "scheme": "exact", "network": "weir:" + details["hub"], "amount": request["amount"],
        "asset": request["currency"], "payTo": request["recipient"], "maxTimeoutSeconds": max(1, lasts), "extra": extra,
    }


def from_requirements(value):
    """The challenge that x402's words make."""
    names = {"scheme": str, "network": str, "amount": str, "asset": str, "payTo": str, "extra": dict}
    made = fields(value, {**names, "maxTimeoutSeconds": int})
    extra = fields(
        made["extra"], {"id": str, "realm": str, "expires": str, "opaque": str, "issuedAt": int, "resource": str, "scale": int},
        {"header": str, "description": str, "metered": bool},
    )
    if made["scheme"] != "exact" or not made["network"].startswith("weir:") or extra["scale"] != 9:
        raise Malformed("another network, scheme or scale")
    details = {"hub": made["network"][5:], "scale": 9, "issuedAt": extra["issuedAt"], "resource": extra["resource"]}
    details.update({"metered": True} if extra.get("metered") else {})
    request = {"amount": made["amount"], "currency": made["asset"], "methodDetails": details, "recipient": made["payTo"]}
    request.update({"description": extra["description"]} if "description" in extra else {})
    challenge = {name: extra[name] for name in ("id", "realm", "expires", "opaque", "header") if name in extra}
    challenge.update(method="weir", intent="charge", request=base64url(canonical(request).encode()))
    from_charge(challenge["request"])
    return challenge


def to_www_authenticate(challenge):
    def quoted(text):
        return text.replace("\\", "\\\\").replace('"', '\\"')

    names = [name for name in HTTP_CHALLENGE + HTTP_OPTIONAL if name in challenge]
    return "Payment " + ", ".join(f'{name}="{quoted(challenge[name])}"' for name in names)


def challenges_in(header):
    """The challenges of the scheme `Payment` that can be read."""
    token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    elements = re.findall(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', header)
    found, ours = [], False
    for element in (element.strip(" \t") for element in elements):
        parameter = rf'({token})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",=][^\s",]*))'
        match = re.fullmatch(parameter, element)
        if not match:
            scheme = re.fullmatch(rf"({token})(?:[ \t]+(.*))?", element)
            if scheme:
                ours = scheme[1].lower() == "payment"
                found += [{}] if ours else []
            match = re.fullmatch(parameter, (scheme and scheme[2]) or "")
        if not element or not ours:
            continue
        name = match and match[1].lower()
        if match and found[-1] is not None and name not in found[-1]:
            found[-1][name] = match[3] if match[3] is not None else re.sub(r"\\(.)", r"\1", match[2])
        else:
            found[-1] = None
    return [one for one in found if one is not None and all(name in one for name in HTTP_CHALLENGE)]


def prove(case):
    """What the credential in a header proves, or the problem that it is."""
    header, malformed = case["header"], "malformed-credential"
    demand(len(header) <= MAX_CREDENTIAL_BYTES, malformed)
    try:
        if case["dialect"] == "x402":
            shown = from_json(from_base64url(header.replace("+", "-").replace("/", "_")))
            shown = fields(shown, {"x402Version": int, "accepted": dict, "payload": dict})
            demand(shown["x402Version"] == 2, malformed)
            challenge = from_requirements(shown["accepted"])
        else:
            scheme, _, token = header.partition(" ")
            expect(scheme.lower(), "payment", "the scheme")
            shown = fields(from_json(from_base64url(token.strip())), {"challenge": dict, "payload": dict}, {"source": str})
            challenge = fields(
                shown["challenge"], dict.fromkeys(HTTP_CHALLENGE, str), dict.fromkeys(HTTP_OPTIONAL, str)
            )
        payload = fields(shown["payload"], {"amount": str, "certificate": str, "receipt": str})
        paid = from_nanos(payload["amount"])
    except Malformed as error:
        raise Refused(malformed) from error
    slots = [text for name, text in challenge.items() if name != "id"]
    made = challenge_id(bytes.fromhex(case["secret"]), challenge)
    ours = hmac.compare_digest(made.encode(), challenge["id"].encode())
    demand(ours and not any("|" in text for text in slots), "invalid-challenge")
    demand("digest" not in challenge and "expires" in challenge, "invalid-challenge")
    try:
        demand((challenge["method"], challenge["intent"]) == ("weir", "charge"), malformed)
        request, details = from_charge(challenge["request"])
    except Malformed as error:
        raise Refused(malformed) from error
    serves = (challenge["realm"], details["hub"], request["recipient"], request["currency"])
    demand(serves == (case["realm"], case["hub"], case["payee"], case["currency"]), "invalid-challenge")
    demand(paid >= request["nanos"], "payment-insufficient")
    demand("issuedAt" in details and "resource" in details, "invalid-challenge")
    try:
        receipt = decode(RECEIPT, from_base64url(payload["receipt"]))
        certificate = decode(SIGNED_CERTIFICATE, from_base64url(payload["certificate"]))
        expires = from_rfc3339(challenge["expires"])
    except Malformed as error:
        raise Refused(malformed) from error
    demand(details["issuedAt"] <= receipt["time"] < expires, "payment-expired")
    payment = {"payee": case["payee"], "amount": to_units(paid), "reference": reference_of(challenge)}
    try:
        check_receipt({"hub": case["hub"], "currency": case["currency"], "payment": payment}, certificate, receipt)
    except Malformed as error:
        raise Refused("verification-failed") from error
    return {
        "payment_id": receipt["payment_id"], "amount": payment["amount"], "reference": payment["reference"],
        "asked": to_units(request["nanos"]), "resource": details["resource"], "paid_at": receipt["time"],
        "chain": receipt["chain"], "commit": receipt["number"],
        "group": receipt["group_path"]["index"], "leaf": receipt["leaf_path"]["index"],
    }


@kind
def http_challenge(case):
    challenge, secret = case["challenge"], bytes.fromhex(case["secret"])
    expect(canonical(case["request"]), case["request_json"], "canonical JSON")
    expect(base64url(case["request_json"].encode()), challenge["request"], "request")
    expect(len(case["request"].get("description", "").encode()) <= 120 and len(challenge["realm"]) <= 128, True, "limits")
    expect((challenge["method"], challenge["intent"]), ("weir", "charge"), "method and intent")
    expect(to_rfc3339(case["expires_at"]), challenge["expires"], "expires")
    expect(from_rfc3339(challenge["expires"]), case["expires_at"], "expires as a time")
    expect(len(from_base64url(challenge["opaque"])), 16, "opaque")
    expect(challenge_id(secret, challenge), challenge["id"], "id")
    expect(reference_of(challenge), case["reference"], "reference")
    expect(to_www_authenticate(challenge), case["www_authenticate"], "WWW-Authenticate")
    expect(challenges_in(case["www_authenticate"]), [challenge], "read again")
    expect(to_requirements(challenge), case["requirements"], "x402")
    expect(from_requirements(case["requirements"]), challenge, "the challenge from x402")
    required = json.loads(base64.b64decode(case["payment_required"], validate=True))
    expect((required["x402Version"], required["accepts"]), (2, [case["requirements"]]), "PAYMENT-REQUIRED")
    longest = max(len(case["www_authenticate"]), len(case["payment_required"]))
    expect(longest <= MAX_CHALLENGE_BYTES, True, "length of the headers")


@kind
def http_resource(case):
    made = H("weir/resource", f"{case['method']} {case['target']}".encode())[:16]
    expect(base64url(made), case["resource"], "resource")


@kind
def http_list(case):
    found = [one for one in challenges_in(case["header"]) if (one["method"], one["intent"]) == ("weir", "charge")]
    expect((bool(found), found[0]["id"] if found else None), (case["valid"], case["id"]), "the challenge")


@kind
def http_credential(case):
    try:
        made, problem = prove(case), None
    except Refused as error:
        made, problem = None, str(error)
    expect((made, problem), (case["proven"], case["problem"]), "what it proves")
    expect(case["valid"], problem is None, "whether it holds")
    if case["name"].startswith("the largest"):
        expect(len(case["header"]) <= MAX_CREDENTIAL_BYTES, True, "the largest size")


@kind
def http_payload(case):
    for name, kind_ in (("certificate", SIGNED_CERTIFICATE), ("receipt", RECEIPT)):
        body = from_base64url(case[name])
        expect(kind_.encode(decode(kind_, body)), body, name)
    from_nanos(case["amount"])


@kind
def http_receipt(case):
    value = from_json(from_base64url(case["header"]))
    expect(value, case["value"], "Payment-Receipt")
    expect((value["status"], value["method"]), ("success", "weir"), "status and method")
    parts = [from_nanos(value[name]) for name in ("amount", "drawn", "left")]
    expect(parts[0], parts[1] + parts[2], "what is left")
    from_rfc3339(value["timestamp"])


@kind
def http_response(case):
    value = json.loads(base64.b64decode(case["header"], validate=True))
    expect(value, case["value"], "PAYMENT-RESPONSE")
    expect(value["network"].startswith("weir:weirhub1"), True, "network")
    expect("errorReason" not in value and len(value["transaction"]) == 64, value["success"], "success")


@kind
def http_price(case):
    def run():
        letters, _, units = case["text"].strip().partition(" ")
        from_currency(letters)
        return letters, from_units(units.lstrip(" "))

    made = holds(case, run)
    shown = f"{made[0]} {to_units(made[1])}" if made else None
    expect((shown, made[1] if made else None), (case["shown"], case["amount"]), "price")


# --- the worked example, and everything together ---------------------------------------------------------------------


def check_example():
    """Section 14: every line follows from those above it."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## 14 .*?```text\n(.*?)```", text, re.S)[1]
    block = re.sub(r"^#.*\n", "", block, flags=re.M).replace("\n  ", "")
    value = {name: bytes.fromhex(data) for name, data in re.findall(r"^(.+?) = ([0-9a-f]+)$", block, re.M)}
    steps = {
        "lane key": public_key(value["lane secret key"]),
        "lane": H("weir/lane", value["grant"]),
        "state": H("weir/payment", value["payment"]),
        "head digest": H("weir/head", value["head"]),
        "signature": sign(value["lane secret key"], value["head digest"]),
        "payment id": H("weir/id", value["lane"] + U64.lay(1)),
        "leaf hash": H("weir/receipt", value["leaf"]),
        "group": value["head digest"] + U32.lay(1) + value["leaf hash"],
        "item": H("weir/group", value["group"]),
        "commit id": H("weir/commit", value["commit"]),
    }
    for name, made in steps.items():
        expect(made.hex(), value[name].hex(), f"worked example: `{name}`")
    units = "0.99"
    payment = value["lane"] + U64.lay(1) + AMOUNT.lay(units) + value["payee"] + value["reference"]
    expect(value["payment"], payment, "payment")
    leaf = value["payment id"] + value["payee"] + AMOUNT.lay(units) + CURRENCY.lay("EUR") + value["reference"]
    expect(value["leaf"], leaf, "leaf")
    expect(value["head"], value["lane"] + value["state"] + U64.lay(1) + AMOUNT.lay(units) + U64.lay(0), "head")
    frame = decode(LANE_REQUEST, value["frame message"][4:])["Frame"]
    expect(frame["signature"], value["signature"].hex(), "signature in the frame")
    receipt = decode(RECEIPT, value["receipt"])
    commit_root = path_root(value["item"], receipt["group_path"])
    expect(value["commit"][-32:], commit_root, "root of the commit")
    expect(receipt["signature"], value["commit signature"].hex(), "signature in the receipt")
    return len(value)


def check_http_example():
    """Section 17: its values are those of the vectors of that name."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## 17 .*?```text\n(.*?)```", text, re.S)[1]
    block = re.sub(r"^#.*\n", "", block, flags=re.M).replace("\n  ", "")
    value = dict(re.findall(r"^([^=\n]+?) = (.+)$", block, re.M))
    cases = json.loads((HERE / "http.json").read_text(encoding="utf-8"))["cases"]
    kept = {case["kind"]: case for case in cases if case["name"] == "the worked example"}
    made, shown = kept["http_challenge"], kept["http_credential"]
    resource = base64url(H("weir/resource", value["request line"].encode())[:16])
    expect(value, {
        "secret": made["secret"], "request line": "GET /article/2", "resource": resource, "request": made["request_json"],
        "challenge": made["www_authenticate"], "reference": made["reference"],
        "payload": canonical({name: kept["http_payload"][name] for name in ("amount", "certificate", "receipt")}),
        "credential": shown["header"], "payment id": shown["proven"]["payment_id"],
    }, "worked example in HTTP")
    expect(resource, made["request"]["methodDetails"]["resource"], "resource")
    return len(value)


def main():
    counts, failures = Counter(), []
    files = sorted(HERE.glob("*.json"))
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        for case in content["cases"]:
            where = f"{file.name}: {case['kind']} `{case['name']}`"
            check = KINDS.get(case["kind"])
            try:
                if check is None:
                    raise Mismatch("unknown kind")
                check(case)
                counts[case["kind"]] += 1
            except Exception as error:  # whatever a case breaks is that case's failure
                failures.append(f"{where}: {type(error).__name__}: {error}")
    for name in KINDS:
        if not counts[name]:
            failures.append(f"no case of kind `{name}`")
    words = {case["word"] for case in json.loads((HERE / "acts.json").read_text(encoding="utf-8"))["cases"]}
    if words != set(WORDS):
        failures.append("not every act has a case")
    try:
        values = check_example() + check_http_example()
    except Exception as error:
        values = 0
        failures.append(f"README.md: {type(error).__name__}: {error}")
    for name in sorted(counts):
        print(f"{counts[name]:5}  {name}")
    print(f"{sum(counts.values()):5}  cases in {len(files)} files, {values} values of the worked examples")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
