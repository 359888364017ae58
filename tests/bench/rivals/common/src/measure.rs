//! How a round trip is timed and checked, the same for all.

use std::time::Instant;

use hdrhistogram::Histogram;

use crate::Args;

/// Round trips before the first that counts: pages touched, connections made, branch predictors trained.
const WARM_UP: u64 = 10_000;
/// Longest round trip that is told from longer ones.
const NS_MAX: u64 = 10_000_000_000;
const DIGITS: u8 = 3;
/// Readings of the clock from which the cost of one is taken.
const CLOCK_READS: u32 = 100_000;

/// A transport between this process and its server, which answers each request with the same bytes.
pub trait Echo {
    /// An answer, wherever it lies; dropping it gives its place back.
    type Answer<'a>: AsRef<[u8]>
    where
        Self: 'a;

    /// One round trip, spinning. Everything that it takes belongs in here: writing the request where the server finds it and
    /// having the answer where it can be read.
    ///
    /// # Errors
    /// When the transport fails.
    fn call(&mut self, request: &[u8]) -> Result<Self::Answer<'_>, String>;
}

/// What was measured.
#[derive(Debug)]
pub struct Report {
    payload: usize,
    clock_ns: u64,
    times: Histogram<u64>,
}

impl Report {
    /// The line that a rival prints, without the line end.
    #[must_use]
    pub fn json(&self, rival: &str) -> String {
        let Self { payload, clock_ns, times } = self;
        format!(
            r#"{{"rival":"{rival}","payload":{payload},"n":{},"p50_ns":{},"p99_ns":{},"p999_ns":{},"clock_ns":{clock_ns}}}"#,
            times.len(),
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            times.value_at_quantile(0.999),
        )
    }
}

/// Measures `echo` for the time that `args` gives. Between two round trips the answer is compared with the request, and the
/// next request gets a number of its own: both outside the measured time.
pub(crate) fn measure<E: Echo>(echo: &mut E, args: &Args) -> Result<Report, String> {
    let mut request: Vec<u8> = (0..args.payload).map(|at| (at % 251) as u8).collect();
    let mut number = 0_u64;
    for _ in 0..WARM_UP {
        timed(echo, &mut request, &mut number)?;
    }
    let mut times = Histogram::new_with_bounds(1, NS_MAX, DIGITS).map_err(|e| e.to_string())?;
    let time = args.duration();
    let begin = Instant::now();
    loop {
        let (ns, end) = timed(echo, &mut request, &mut number)?;
        times.saturating_record(ns);
        if end.duration_since(begin) >= time {
            return Ok(Report { payload: args.payload, clock_ns: clock_ns(), times });
        }
    }
}

/// One round trip: its nanoseconds (at least 1) and its end.
fn timed<E: Echo>(echo: &mut E, request: &mut [u8], number: &mut u64) -> Result<(u64, Instant), String> {
    *number += 1;
    for (to, from) in request.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    let start = Instant::now();
    let answer = echo.call(request)?;
    let end = Instant::now();
    if answer.as_ref() != request {
        return Err(format!(
            "answer {number} is not the request: {} bytes for {}",
            answer.as_ref().len(),
            request.len()
        ));
    }
    let ns = u64::try_from(end.duration_since(start).as_nanos()).unwrap_or(u64::MAX);
    Ok((ns.max(1), end))
}

/// What reading the clock costs: each round trip contains one reading, half of the one before and half of the one after.
fn clock_ns() -> u64 {
    let begin = Instant::now();
    for _ in 0..CLOCK_READS {
        std::hint::black_box(Instant::now());
    }
    u64::try_from(begin.elapsed().as_nanos() / u128::from(CLOCK_READS)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the request; from call `wrong_at` on, with one byte changed.
    struct Mirror {
        calls: u64,
        wrong_at: u64,
    }

    impl Echo for Mirror {
        type Answer<'a> = Vec<u8>;

        fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
            self.calls += 1;
            let mut answer = request.to_vec();
            if self.calls >= self.wrong_at {
                answer[0] ^= 1;
            }
            Ok(answer)
        }
    }

    fn args(payload: usize) -> Args {
        Args { payload, seconds: 0.01, server_cpu: 0, client_cpu: 1, client_pid: None }
    }

    #[test]
    fn a_report_has_the_keys_of_the_protocol() {
        let mut mirror = Mirror { calls: 0, wrong_at: u64::MAX };
        let report = measure(&mut mirror, &args(64)).expect("a mirror never fails");
        let line = report.json("mirror");
        for key in [
            r#""rival":"mirror""#,
            r#""payload":64"#,
            r#""p50_ns":"#,
            r#""p99_ns":"#,
            r#""p999_ns":"#,
            r#""clock_ns":"#,
        ] {
            assert!(line.contains(key), "{line}");
        }
        assert!(line.contains(&format!(r#""n":{}"#, mirror.calls - WARM_UP)), "{line}");
    }

    #[test]
    fn an_empty_payload_is_a_round_trip_too() {
        let mut mirror = Mirror { calls: 0, wrong_at: u64::MAX };
        assert!(measure(&mut mirror, &args(0)).is_ok());
    }

    #[test]
    fn a_wrong_answer_ends_the_measurement() {
        let mut mirror = Mirror { calls: 0, wrong_at: WARM_UP + 5 };
        let why = measure(&mut mirror, &args(8)).expect_err("one answer was wrong");
        assert!(why.contains("is not the request"), "{why}");
        assert_eq!(mirror.calls, WARM_UP + 5);
    }
}
