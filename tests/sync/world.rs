//! A gateway and the provider where its user has an account.
//!
//! Not here: what either of them does.

use std::ops::{Deref, DerefMut};

use crate::support::office::Office;

pub struct World<P> {
    pub provider: P,
    pub office: Office,
}

impl<P> Deref for World<P> {
    type Target = Office;
    fn deref(&self) -> &Office {
        &self.office
    }
}

impl<P> DerefMut for World<P> {
    fn deref_mut(&mut self) -> &mut Office {
        &mut self.office
    }
}
