//! The controller's decisions, without IO.
