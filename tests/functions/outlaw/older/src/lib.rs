//! What safe code of an older edition may do.
#![forbid(unsafe_code)]

/// Sets a variable of the environment.
pub fn set_variable(name: &str, value: &str) {
    std::env::set_var(name, value);
}

/// Takes it out again.
pub fn remove_variable(name: &str) {
    std::env::remove_var(name);
}
