pub(crate) mod bulletin;
