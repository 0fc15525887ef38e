//! The embedded MQTT broker of both sides: our front door on rumqttd's packet codec.
