//! Measurements of the product.

pub(crate) mod quick;
