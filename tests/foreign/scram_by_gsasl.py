"""A login by SCRAM-SHA-256-PLUS: the exchange is GNU SASL's, the connection and what
binds to it OpenSSL's. Neither has a binding in Debian's Python that knows tls-exporter
(RFC 9266), so their libraries are called as they are.

scram_by_gsasl.py HOST PORT AUTHORITY USER PASSWORD own|another

With "another" the exchange is bound to a connection that is not this one, as of
somebody between.
"""

import base64
import ctypes
import socket
import sys

# gsasl.h
AUTHID, PASSWORD, CB_TLS_EXPORTER = 1, 3, 25
OK, NEEDS_MORE = 0, 1
VERIFY_PEER = 1

host, port, authority, user, password, binding = sys.argv[1:]
ssl = ctypes.CDLL("libssl.so.3")
gsasl = ctypes.CDLL("libgsasl.so.18")
pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
for function, result, arguments in [
    (ssl.TLS_client_method, pointer, []),
    (ssl.SSL_CTX_new, pointer, [pointer]),
    (ssl.SSL_CTX_load_verify_locations, number, [pointer, text, text]),
    (ssl.SSL_CTX_set_verify, None, [pointer, number, pointer]),
    (ssl.SSL_new, pointer, [pointer]),
    (ssl.SSL_set1_host, number, [pointer, text]),
    (ssl.SSL_set_fd, number, [pointer, number]),
    (ssl.SSL_connect, number, [pointer]),
    (ssl.SSL_read, number, [pointer, text, number]),
    (ssl.SSL_write, number, [pointer, text, number]),
    (
        ssl.SSL_export_keying_material,
        number,
        [pointer, text, ctypes.c_size_t, text, ctypes.c_size_t, text, ctypes.c_size_t, number],
    ),
    (gsasl.gsasl_init, number, [ctypes.POINTER(pointer)]),
    (gsasl.gsasl_client_start, number, [pointer, text, ctypes.POINTER(pointer)]),
    (gsasl.gsasl_property_set, number, [pointer, number, text]),
    (gsasl.gsasl_step64, number, [pointer, text, ctypes.POINTER(text)]),
]:
    function.restype, function.argtypes = result, arguments

plain = socket.create_connection((host, int(port)), 60)
plain.settimeout(None)
context = ssl.SSL_CTX_new(ssl.TLS_client_method())
assert ssl.SSL_CTX_load_verify_locations(context, authority.encode(), None) == 1
ssl.SSL_CTX_set_verify(context, VERIFY_PEER, None)
tls = ssl.SSL_new(context)
assert ssl.SSL_set1_host(tls, host.encode()) == 1
assert ssl.SSL_set_fd(tls, plain.fileno()) == 1
assert ssl.SSL_connect(tls) == 1, "a handshake"

unread = b""


def line():
    global unread
    while b"\r\n" not in unread:
        piece = ctypes.create_string_buffer(4096)
        count = ssl.SSL_read(tls, piece, len(piece))
        assert count > 0, "the server closed"
        unread += piece.raw[:count]
    said, unread = unread.split(b"\r\n", 1)
    print(said.decode())
    return said


def say(octets):
    octets += b"\r\n"
    assert ssl.SSL_write(tls, octets, len(octets)) == len(octets)
    return line()


bound = ctypes.create_string_buffer(32)
label = b"EXPORTER-Channel-Binding"
assert ssl.SSL_export_keying_material(tls, bound, 32, label, len(label), b"", 0, 1) == 1
bound = bound.raw if binding == "own" else bytes(32)

library, exchange = pointer(), pointer()
assert gsasl.gsasl_init(ctypes.byref(library)) == OK
mechanism = b"SCRAM-SHA-256-PLUS"
assert gsasl.gsasl_client_start(library, mechanism, ctypes.byref(exchange)) == OK
for property, value in [
    (AUTHID, user.encode()),
    (PASSWORD, password.encode()),
    (CB_TLS_EXPORTER, base64.b64encode(bound)),
]:
    assert gsasl.gsasl_property_set(exchange, property, value) == OK


def step(challenge):
    response = text()
    code = gsasl.gsasl_step64(exchange, challenge, ctypes.byref(response))
    assert code in (OK, NEEDS_MORE), f"GNU SASL says {code}"
    return code, response.value or b""


line()
code, response = step(b"")
said = say(b"AUTH " + mechanism + b" " + response)
while said.startswith(b"+ "):
    code, response = step(said[2:])
    said = say(response)
# GNU SASL has seen the server's proof, and it was right.
assert code == OK or not said.startswith(b"+OK"), "nothing was proved to us"
print("logged in" if said.startswith(b"+OK") else "refused")
say(b"QUIT")
