"""LM Studio's websocket protocol, which its SDKs speak: a socket for each namespace."""
