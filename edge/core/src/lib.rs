//! The gateway's decisions, without IO: accept, apply, route, window, backoff.
