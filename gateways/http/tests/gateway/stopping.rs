//! Stopping: no new connection, what is in flight ends, and what does not end is cut.

use std::io;
use std::time::Duration;

use microfaas_http::{Config, Stopped};
use tokio::net::TcpStream;

use crate::client::{Got, h2c, http1, request};
use crate::fake::{Served, run, serve};

/// Waits until the port is closed.
async fn refused(served: &Served) {
    loop {
        match TcpStream::connect(served.addr).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

#[test]
fn what_is_in_flight_is_finished() {
    run(async {
        let mut served = serve(Config::default()).await;
        let mut one = http1(served.addr).await;
        let mut two = h2c(served.addr).await;
        let idle = http1(served.addr).await;
        let one = tokio::spawn(one.send_request(request(served.addr, "GET", "/fn/hold", b"")));
        let target = format!("http://{}/fn/hold", served.addr);
        let two = tokio::spawn(two.send_request(request(served.addr, "GET", &target, b"")));
        served.fake.until(|fake| &fake.submitted, 2).await;

        served.begin_stop();
        refused(&served).await;
        served.fake.release();
        assert_eq!(Got::of(one.await.unwrap().unwrap()).await.body, "released");
        assert_eq!(Got::of(two.await.unwrap().unwrap()).await.body, "released");
        assert_eq!(served.stopped().await, Stopped { connections_cut: 0 });
        drop(idle);
    });
}

#[test]
fn what_does_not_end_is_cut() {
    run(async {
        let mut served = serve(Config { stop_timeout: Duration::from_millis(50), ..Config::default() }).await;
        let mut client = http1(served.addr).await;
        let held = tokio::spawn(client.send_request(request(served.addr, "GET", "/fn/hold", b"")));
        served.fake.until(|fake| &fake.submitted, 1).await;
        served.begin_stop();
        let fake = std::sync::Arc::clone(&served.fake);
        assert_eq!(served.stopped().await, Stopped { connections_cut: 1 });
        fake.until(|fake| &fake.taken_back, 1).await;
        assert!(held.await.unwrap().is_err());
    });
}

/// The gateway's threads do not agree on when a connection has ended: it is over before its task is.
#[test]
fn what_has_ended_was_not_cut() {
    run(async {
        for _ in 0..100 {
            let mut served = serve(Config::default()).await;
            let mut idle = Vec::new();
            for _ in 0..4 {
                let mut client = http1(served.addr).await;
                let sent = request(served.addr, "GET", "/fn/echo", b"");
                assert_eq!(Got::of(client.send_request(sent).await.unwrap()).await.http, 200);
                idle.push(client);
            }
            served.begin_stop();
            assert_eq!(served.stopped().await, Stopped { connections_cut: 0 });
        }
    });
}
