//! One request, from its head to its response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{EXPECT, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::Status;
use crate::access::Access;
use crate::answer;
use crate::backend::{Backend, CallRequest};
use crate::body::{self, BodyError};
use crate::config::Config;
use crate::metrics;
use crate::outgoing::{Answered, Outgoing};
use crate::refusal::Refusal;
use crate::request::{self, Metadata};
use crate::request_id;
use crate::routes::{Routes, Target};

/// A body of this size counts as nothing, in the budgets for all bodies and for all answers.
const FREE_BODY_BYTES: u32 = 64 << 10;
/// What the budget counts in.
const BUDGET_UNIT: u32 = 1 << 10;
/// The least that an answer which counts takes.
const COUNTED_UNITS: usize = (FREE_BODY_BYTES / BUDGET_UNIT) as usize + 1;
const UNREAD: &str = "too many answers wait to be read";

/// What all connections of a gateway share.
#[derive(Debug)]
pub(crate) struct Service<B> {
    backend: Arc<B>,
    config: Config,
    routes: Routes,
    /// For bodies that are being collected, in units of [`BUDGET_UNIT`].
    bodies: Semaphore,
    /// For functions' answers that wait to be read, in the same units.
    responses: Arc<Semaphore>,
    /// As much again for the gateway's own, so that nobody who leaves the former unread keeps a page of metrics from coming.
    own: Arc<Semaphore>,
    /// All that each of the two has.
    responses_units: usize,
    /// For the one page of metrics at a time that is made.
    page: Arc<Semaphore>,
}

/// A body and what it holds of the budget.
type Collected<'a> = (Bytes, Option<SemaphorePermit<'a>>);

impl<B: Backend> Service<B> {
    pub(crate) fn new(backend: Arc<B>, mut config: Config) -> Self {
        let routes = Routes::new(std::mem::take(&mut config.routes), config.metrics_path.take());
        let units = |bytes: usize| (bytes / BUDGET_UNIT as usize).min(Semaphore::MAX_PERMITS);
        let bodies = Semaphore::new(units(config.bodies_bytes_max));
        let responses_units = units(config.responses_bytes_max);
        let [responses, own, page] =
            [responses_units, responses_units, 1].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { backend, config, routes, bodies, responses, own, responses_units, page }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Answers one request. Dropped, it takes the call back.
    pub(crate) async fn handle(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
        outgoing: &Arc<Outgoing>,
    ) -> Response<Answered> {
        let (parts, mut body) = request.into_parts();
        let id = request_id::of(parts.headers.get(request_id::HEADER));
        let mut access =
            Access::new(self.config.access_log, id, peer, parts.method.clone(), parts.uri.path());
        let is_head = parts.method == Method::HEAD;

        let answered = self.answer(&parts, &mut body, &mut access).await;
        let is_call = !access.function.is_empty();
        // A client that waits for `100 Continue` sends nothing that would have to be drained.
        if (answered.is_err() || !is_call) && !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
            tokio::spawn(body::linger(body));
        }
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                access.status = refusal.status;
                answer::refuse(&refusal, access.id(), is_head)
            }
        };
        let budget = match self.room_for(response.body().len(), is_call) {
            Ok(budget) => budget,
            Err(refusal) => {
                access.status = refusal.status;
                response = answer::refuse(&refusal, access.id(), is_head);
                None
            }
        };
        if let Ok(id) = HeaderValue::from_str(access.id()) {
            response.headers_mut().insert(HeaderName::from_static(request_id::HEADER), id);
        }
        access.answered(response.status(), response.body().len() as u64);
        response.map(|bytes| Answered::new(bytes, outgoing, budget))
    }

    /// What an answer of this length takes of its budget: all of it at most, so that one alone always goes.
    fn room_for(&self, len: usize, is_call: bool) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if len <= FREE_BODY_BYTES as usize {
            return Ok(None);
        }
        let units = len.div_ceil(BUDGET_UNIT as usize).min(self.responses_units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let budget = if is_call { &self.responses } else { &self.own };
        match Arc::clone(budget).try_acquire_many_owned(units) {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if is_call => Err(Refusal::response_dropped()),
            Err(_) => Err(Refusal::not_accepted(Status::Overloaded, UNREAD)),
        }
    }

    async fn answer(
        &self,
        parts: &Parts,
        body: &mut Incoming,
        access: &mut Access,
    ) -> Result<Response<Bytes>, Refusal> {
        let path = parts.uri.path();
        let (name, path) = match self.routes.find(&parts.method, path) {
            Target::Function { name, path } => (name, path),
            Target::Health => return Ok(self.health(access, parts.method == Method::HEAD)),
            Target::Metrics => return self.metrics(access, parts.method == Method::HEAD).await,
            Target::Unknown => return Err(Refusal::no_route(path)),
            Target::NotAllowed(methods) => return Err(Refusal::method_not_allowed(&parts.method, &methods)),
        };
        name.clone_into(&mut access.function);
        request::check_coding(&parts.headers)?;
        // What can be refused by its head is, before a byte of the body is read.
        let deadline = request::deadline(&parts.headers, self.config.deadline_max)?;
        if self.responses.available_permits() < COUNTED_UNITS.min(self.responses_units) {
            return Err(Refusal::not_accepted(Status::Overloaded, UNREAD));
        }
        let metadata = Metadata::new(parts, path)?;
        let id = access.id().to_owned();
        let meta = metadata.pairs(parts, &id)?;
        let (body, budget) = self.body(body).await?;
        access.bytes_in = body.len();

        let deadline = match deadline.map(|limit| limit.checked_sub(access.arrived().elapsed())) {
            None => None,
            Some(Some(left)) if left > Duration::ZERO => Some(left),
            Some(_) => {
                return Err(Refusal::not_accepted(
                    Status::Expired,
                    "the deadline passed while the body was coming",
                ));
            }
        };
        let call = self
            .backend
            .submit(CallRequest { function: name, body: &body, meta: &meta, deadline })
            .map_err(|refused| {
                let after = refused.retry_after;
                Refusal::not_accepted(refused.status, refused.message).retry_after(after)
            })?;
        // The call has copies; while it runs, the request's memory is better used otherwise.
        drop((body, budget, meta));
        let answer = call.await;

        access.status = answer.status.name();
        access.worker = answer.worker;
        access.cpu_ns = answer.cpu_ns;
        if !matches!(answer.status, Status::Ok | Status::Error | Status::Expired | Status::Cancelled) {
            tracing::warn!(
                target: "microfaas::call",
                id = %access.id(),
                function = name,
                status = answer.status.name(),
                worker = answer.worker,
                detail = answer::detail(&answer),
                "a call failed",
            );
        }
        answer::respond(answer, parts.method == Method::HEAD, self.config.expose_panics)
    }

    async fn body(&self, incoming: &mut Incoming) -> Result<Collected<'_>, Refusal> {
        let limit = self.config.body_bytes_max;
        let budget = self.budget(incoming.size_hint().exact())?;
        match body::read(incoming, limit, self.config.body_timeout).await {
            Ok(body) => Ok((body, budget)),
            Err(BodyError::TooLarge) => Err(Refusal::body_too_large(limit)),
            Err(BodyError::Stalled) => Err(Refusal::body_stalled()),
            Err(BodyError::Broken(reason)) => {
                Err(Refusal::bad_request(format!("the request body is broken: {reason}")).and_close())
            }
        }
    }

    /// A body of unknown length is taken for one of the longest.
    fn budget(&self, len: Option<u64>) -> Result<Option<SemaphorePermit<'_>>, Refusal> {
        let limit = self.config.body_bytes_max as u64;
        let len = len.unwrap_or(limit);
        // Over the limit is refused as that, unread.
        if len <= u64::from(FREE_BODY_BYTES) || len > limit {
            return Ok(None);
        }
        let units = u32::try_from(len / u64::from(BUDGET_UNIT)).unwrap_or(u32::MAX);
        let permit = self.bodies.try_acquire_many(units);
        permit.map(Some).map_err(|_| {
            Refusal::not_accepted(Status::Overloaded, "too many large request bodies at once").and_close()
        })
    }

    /// On another thread, since thousands of functions take their time, and one page at a time.
    async fn metrics(&self, access: &mut Access, is_head: bool) -> Result<Response<Bytes>, Refusal> {
        // It is never closed.
        let turn = Arc::clone(&self.page).acquire_owned().await;
        let backend = Arc::clone(&self.backend);
        let page = tokio::task::spawn_blocking(move || {
            let page = metrics::page(backend.metrics());
            drop(turn);
            page
        });
        // Writing to a string does not fail; a panic in it was reported by the panic hook.
        let page = page.await.ok().and_then(Result::ok).ok_or_else(Refusal::no_page)?;
        access.status = Status::Ok.name();
        Ok(answer::text(metrics::CONTENT_TYPE, page, is_head))
    }

    fn health(&self, access: &mut Access, is_head: bool) -> Response<Bytes> {
        access.status = Status::Ok.name();
        let health = self.backend.health();
        let (http, word) = match health.workers_up {
            0 => (StatusCode::SERVICE_UNAVAILABLE, "down"),
            up if up < health.workers => (StatusCode::OK, "degraded"),
            _ => (StatusCode::OK, "up"),
        };
        let text = serde_json::json!({
            "status": word, "workers": health.workers, "workers_up": health.workers_up
        });
        answer::json(http, format!("{text}\n"), is_head)
    }
}
