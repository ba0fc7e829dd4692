#!/usr/bin/env python3
"""Prints record.json: sealed records computed without src/core.

HMAC-SHA-256 from the standard library, AES-256-GCM from the "cryptography"
package.  The layout is that of src/core/record.h, written down again here.
"""
import hashlib
import hmac
import json

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def stream(seed, n):
    """n bytes that look random and are always the same."""
    return hashlib.shake_256(seed.encode()).digest(n)


def mac(key, *parts):
    return hmac.new(key, b"".join(parts) + b"\x01", hashlib.sha256).digest()


def u64(n):
    return n.to_bytes(8, "big")


def associated_data(v):
    fields = [b"oauth_vault", u64(1), bytes.fromhex(v["vault_id"]), v["tenant"].encode(), v["user_id"].encode(),
              bytes.fromhex(v["connector_id"]), bytes.fromhex(v["connection_id"]), v["purpose"].encode(),
              bytes.fromhex(v["hosts_digest"]), u64(int(v["key_id"])), u64(int(v["token_generation"]))]
    return b"".join(len(f).to_bytes(4, "big") + f for f in fields)


def seal(v):
    subkey, salt, iv = (bytes.fromhex(v[name]) for name in ("subkey", "salt", "iv"))
    key = mac(subkey, b"ov1 key", salt)
    commit = mac(subkey, b"ov1 commit", salt)
    sealed = AESGCM(key).encrypt(iv, bytes.fromhex(v["plaintext"]), associated_data(v))
    return b"OVR" + b"\x01\x01" + u64(int(v["key_id"])) + salt + commit + iv + sealed


PURPOSES = ["access_token", "refresh_token", "id_token", "client_secret", "pkce_verifier", "dpop_key",
            "user_key", "connector_key", "audit_key"]
PLAINTEXTS = [b"", b"x", b"ya29.an-access-token", "r\u00e9fresh \u20ac".encode(), bytes(range(256)), stream("long", 5000)]

vectors = []
for i, purpose in enumerate(PURPOSES):
    none = i % 3 == 2
    v = {
        "name": f"{purpose}, {len(PLAINTEXTS[i % 6])} bytes",
        "subkey": stream(f"subkey {i}", 32).hex(),
        "vault_id": stream("vault", 16).hex(),
        "tenant": ["", "acme", "t" * 255][i % 3],
        "user_id": ["ada", "\u00e5sa@example.com", "u" * 255][i // 3],
        "connector_id": (bytes(16) if none else stream(f"connector {i}", 16)).hex(),
        "connection_id": (bytes(16) if none else stream(f"connection {i}", 16)).hex(),
        "purpose": purpose,
        "hosts_digest": (bytes(32) if none else stream(f"hosts {i}", 32)).hex(),
        # decimal text: the largest does not fit a JSON reader's signed integer
        "key_id": str([1, 4711, 2**64 - 1][i % 3]),
        "token_generation": str([0, 1, 2**63][i // 3]),
        "salt": stream(f"salt {i}", 32).hex(),
        "iv": stream(f"iv {i}", 12).hex(),
        "plaintext": PLAINTEXTS[i % 6].hex(),
    }
    v["record"] = seal(v).hex()
    vectors.append(v)

user_key = stream("user key", 32)
print(json.dumps({
    "comment": ["Sealed records of src/core/record.h, written by record.py beside this file: HMAC-SHA-256 from Python's",
                "hmac and hashlib, AES-256-GCM from the Python package cryptography; nothing of src/core took part.",
                "record = 'OVR' 01 01 | key_id u64 | salt | HMAC(subkey, 'ov1 commit' salt 01) | iv | AES-256-GCM with",
                "the key HMAC(subkey, 'ov1 key' salt 01).  Associated data: each of 'oauth_vault', 1 (u64), vault_id,",
                "tenant, user_id, connector_id, connection_id, purpose, hosts_digest, key_id (u64), token_generation",
                "(u64) behind its length (u32), all big-endian.  Bytes are in hexadecimal, numbers in decimal text.",
                "A subkey is HMAC(user key, label 01)."],
    "records": vectors,
    "subkeys": [{"key": user_key.hex(), "label": label, "subkey": mac(user_key, label.encode()).hex()}
                for label in ("ov1 access subkey", "ov1 refresh subkey")],
}, indent=1))
