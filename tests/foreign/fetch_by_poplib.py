"""Fetches a maildrop by Python's poplib, the way a short script would.

Arguments: host, port, clear|stls|tls, certificate, user, password, folder,
leave|delete. Messages not yet fetched go to FOLDER/new, one file each; the
unique-ids of those fetched are lines of FOLDER/seen. It prints how many messages
it fetched.
"""

import poplib
import ssl
import sys
from pathlib import Path

host, port, protection, certificate, user, password, folder, mode = sys.argv[1:]
folder = Path(folder)
context = ssl.create_default_context(cafile=certificate)
if protection == "tls":
    server = poplib.POP3_SSL(host, int(port), context=context, timeout=60)
else:
    server = poplib.POP3(host, int(port), timeout=60)
if protection == "stls":
    server.stls(context)
assert "UIDL" in server.capa() and "TOP" in server.capa()
server.user(user)
server.pass_(password)

count, total = server.stat()
sizes = [int(row.split()[1]) for row in server.list()[1]]
assert len(sizes) == count and sum(sizes) == total
seen_file = folder / "seen"
seen = seen_file.read_text().split() if seen_file.exists() else []

fetched = 0
for row in server.uidl()[1]:
    number, unique = row.decode("ascii").split()
    if unique not in seen:
        _, lines, _ = server.retr(int(number))
        message = b"".join(line + b"\r\n" for line in lines)
        assert len(message) == sizes[int(number) - 1], number
        # As many lines as there are: the whole of it once more.
        assert server.top(int(number), len(lines))[1] == lines, number
        (folder / "new" / f"{len(seen):04}").write_bytes(message)
        seen.append(unique)
        fetched += 1
    if mode == "delete":
        server.dele(int(number))
server.quit()
seen_file.write_text("\n".join(seen))
print(fetched)
