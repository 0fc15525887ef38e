//! The durable store-and-forward queue of a bridge.
