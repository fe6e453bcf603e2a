"""The providers' wire protocols, pure: bytes in, question out; answer in, bytes out.

A wire knows its provider's requests, limits, responses and error bodies. It does no I/O, labels
nothing and breaks nothing: `smoothapi.services` puts it behind a socket.
"""
