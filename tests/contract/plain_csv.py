"""Makes the CSV of an export from the NDJSON that was imported, in the plainest way, and without the product.

python plain_csv.py IN.ndjson OUT.csv
"""

import ipaddress
import json
import sys

LABELS = {
    "domain.created": "Domain created",
    "user.password_changed": "Password changed",
    "auth.login_failed": "Login failed",
    "queue.item_deleted": "Queue item deleted",
    "system.relay_configured": "Relay configured",
}


def masked(ip: str) -> str:
    if not ip:
        return ""
    if "." in ip:
        return ".".join(ip.split(".")[:3]) + ".xxx"
    groups = ipaddress.IPv6Address(ip).exploded.split(":")
    groups[7] = "ffff"
    return str(ipaddress.IPv6Address(":".join(groups)))[: -len("ffff")] + "xxxx"


def cell(text: str) -> str:
    if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠") and text:
        text = "'" + text
    if any(character in text for character in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def main(source: str, target: str) -> None:
    with open(source, encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    entries.sort(key=lambda entry: entry["timestamp"], reverse=True)
    with open(target, "w", encoding="utf-8", newline="") as out:
        out.write("\ufeffTimestamp,Action,Target,Detail,User,IP Address\r\n")
        for entry in entries:
            ip = entry["ip"]
            texts = [
                entry[name].replace(ip, masked(ip)) if ip else entry[name] for name in ("target", "detail", "user")
            ]
            row = [entry["timestamp"], LABELS[entry["action"]], *texts, masked(ip)]
            out.write(",".join(cell(text) for text in row) + "\r\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
