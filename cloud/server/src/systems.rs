//! Other systems on the broker: what they tell the controller to do, and what they see of it (docs/integrations.md).
//!
//! [`Commander`] carries out commands, one after the other, through the same requests as the API. [`StateKeeper`] keeps
//! the retained states true. Both go over an [`Outlet`], so that they are the same on every broker; neither is in the
//! way of the loop.

mod changed;
mod commander;
mod recent;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use changed::Changed;
pub(crate) use commander::{Commander, FromSystem, Intake, intake};
pub(crate) use states::{StateKeeper, Stray, strays};
