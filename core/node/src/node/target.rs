//! What can be called.

use crate::CallError;
use crate::call::FunctionHandle;
use crate::node::Shared;

/// Something that names a function of a node: a [`FunctionHandle`], resolved once, or its name.
pub trait Target: sealed::Sealed {}

mod sealed {
    use super::{CallError, FunctionHandle, Shared};

    #[expect(unnameable_types, reason = "nobody else implements it")]
    pub trait Sealed {
        #[expect(private_interfaces, reason = "nobody else calls it")]
        fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError>;
    }
}

impl Target for FunctionHandle {}
impl Target for str {}
impl<T: Target + ?Sized> Target for &T {}

impl sealed::Sealed for FunctionHandle {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        if self.node == shared.id { Ok(*self) } else { Err(CallError::UnknownFunction) }
    }
}

impl sealed::Sealed for str {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        shared.function(self)
    }
}

impl<T: sealed::Sealed + ?Sized> sealed::Sealed for &T {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        (**self).resolve(shared)
    }
}
