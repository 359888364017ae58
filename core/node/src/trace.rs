//! Which request a call is of, for the log: what its caller named it in the metadata, as the HTTP gateway does.

use microfaas_lane::host::{Reader, Ticket};
use microfaas_lane::message::{META_ALIGN, Pairs, message_len};

use crate::completion::printable;
use crate::lane::Lane;

/// The pair with the name of a request.
const REQUEST_ID: &str = "x-request-id";
/// Longer requests are not copied for a line of the log.
const BYTES_MAX: usize = 16 << 10;

impl Lane {
    /// The name that the request of a call in flight has; `None` where it has none, is too long to look, or the call is not in flight any more.
    ///
    /// # Cost
    /// The request is copied: for what is rare.
    #[cold]
    pub(crate) fn request_id(&self, reader: &mut Reader, ticket: Ticket) -> Option<String> {
        let (body_len, meta_len) = self.host.asked(reader, ticket).filter(|(_, meta_len)| *meta_len > 0)?;
        let (body_len, meta_len) = (body_len as usize, meta_len as usize);
        let len = message_len(body_len, meta_len).filter(|len| *len <= BYTES_MAX)?;
        let mut message = vec![0; len];
        self.host.copy_request(reader, ticket, &mut message)?;
        let meta = message.get(body_len.next_multiple_of(META_ALIGN)..)?.get(..meta_len)?;
        Some(printable(Pairs::parse(meta).ok()?.get(REQUEST_ID)?.as_bytes()))
    }
}
