"""gRPC over HTTP/2 on the event loop itself, without the threads of gRPC's C core."""
