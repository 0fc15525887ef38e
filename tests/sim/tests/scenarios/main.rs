//! What storms found, each as the shortest run that failed before it was mended in a core; and what the protocol
//! promises, played out by hand.

mod found;
mod promised;
