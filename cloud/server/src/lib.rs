//! The controller: store, MQTT transport, HTTP API, the one loop.
