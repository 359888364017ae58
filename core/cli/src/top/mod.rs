//! `top`: what goes on in a node, every second, until `q`.

mod rates;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use microfaas_node::NodeStats;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::args::Top;
use crate::deploy;
use crate::failure::Failure;
use crate::stats::time;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// A look at the node, and the one before it.
#[derive(Debug)]
struct View {
    now: NodeStats,
    then: NodeStats,
    at: Instant,
    between: Duration,
    /// Why the last look has failed.
    trouble: Option<String>,
}

pub(crate) fn run(args: &Top) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    // The first look may fail with a message, before the terminal is taken.
    let socket = deploy::socket(args.socket.as_deref(), args.config.as_deref())?;
    let first = microfaas_node::stats(&socket)?;
    let mut view =
        View { then: first.clone(), now: first, at: Instant::now(), between: PERIOD, trouble: None };
    let mut terminal = ratatui::try_init().map_err(Failure::Terminal)?;
    let done = watch(&mut terminal, &socket, &mut view);
    ratatui::restore();
    done.map_err(Failure::Terminal)
}

fn watch(terminal: &mut ratatui::DefaultTerminal, socket: &Path, view: &mut View) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw(frame, view))?;
        let until = view.at + PERIOD;
        loop {
            if !event::poll(until.saturating_duration_since(Instant::now()))? {
                break;
            }
            match event::read()? {
                Event::Key(key) if ends(&key) => return Ok(()),
                Event::Resize(..) => {
                    terminal.draw(|frame| draw(frame, view))?;
                }
                _ => {}
            }
        }
        view.look(microfaas_node::stats(socket).map_err(|error| error.to_string()));
    }
}

fn ends(key: &KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.is_press() && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl View {
    fn look(&mut self, found: Result<NodeStats, String>) {
        let at = Instant::now();
        match found {
            Ok(now) => {
                self.then = std::mem::replace(&mut self.now, now);
                self.between = at - self.at;
                self.trouble = None;
            }
            Err(reason) => self.trouble = Some(reason),
        }
        self.at = at;
    }
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let workers = rates::workers(&view.now, &view.then, view.between);
    let functions = rates::functions(&view.now, &view.then, view.between);
    let worker_lines = u16::try_from(workers.len() + 2).unwrap_or(u16::MAX).min(frame.area().height / 2);
    let parts =
        [Constraint::Length(3), Constraint::Length(worker_lines), Constraint::Min(2), Constraint::Length(1)];
    let [head, middle, body, foot] = Layout::vertical(parts).areas(frame.area());
    let calls: f64 = functions.iter().map(|row| row.calls_per_s).sum();
    let cores: f64 = functions.iter().map(|row| row.cores).sum();
    let (pid, hosts, calls) = (view.now.pid, view.now.hosts.len(), rate(calls));
    let title = format!("node {pid}   {calls} calls/s   {cores:.2} cores in calls   {hosts} hosts attached");
    let spares = Line::from(crate::stats::spares(&view.now.spares)).dim();
    frame.render_widget(Text::from(vec![Line::from(title).bold(), spares]), head);

    let names = ["WORKER", "PID", "CORE", "STATE", "CALLS/s", "BUSY", "SLOTS", "RESTARTS"];
    let widths = [7, 8, 5, 12, 10, 8, 10, 8].map(Constraint::Length);
    let rows = workers.iter().map(|row| {
        let worker = &row.worker;
        let or_dash = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
        Row::new([
            worker.index.to_string(),
            or_dash(worker.pid),
            or_dash(worker.cpu),
            worker.state.clone(),
            rate(row.calls_per_s),
            format!("{:.1} %", row.cores * 100.0),
            format!("{}/{}", worker.slots_in_use, worker.slots),
            row.restarts.to_string(),
        ])
    });
    frame.render_widget(Table::new(rows, widths).header(header(names)), middle);

    let names = ["FUNCTION", "CALLS/s", "NOT OK/s", "CORES", "p50", "p99", "QUEUE p99", "CALLS"];
    let widths = [Constraint::Min(16)].into_iter().chain([10, 10, 8, 10, 10, 10, 14].map(Constraint::Length));
    let rows = functions.iter().map(|row| {
        let or_dash = |ns: Option<u64>| ns.map_or("-".to_owned(), time);
        Row::new([
            row.name.clone(),
            rate(row.calls_per_s),
            rate(row.failures_per_s),
            format!("{:.3}", row.cores),
            or_dash(row.p50_ns),
            or_dash(row.p99_ns),
            or_dash(row.queue_p99_ns),
            row.calls.to_string(),
        ])
    });
    frame.render_widget(Table::new(rows, widths).header(header(names)), body);
    let foot_line = match &view.trouble {
        Some(reason) => Line::from(format!("{reason}; the last numbers are shown")).red(),
        None => Line::from("q quits").dim(),
    };
    frame.render_widget(foot_line, foot);
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names.map(Cell::from)).style(Style::new().reversed())
}

/// Three digits are enough.
fn rate(per_second: f64) -> String {
    match per_second {
        n if n < 0.05 => "0".to_owned(),
        n if n < 1000.0 => format!("{n:.1}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n => format!("{:.2} M", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use microfaas_node::{FunctionStats, WorkerStats};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn stats(calls: u64) -> NodeStats {
        let calls_by_status = [("OK".to_owned(), calls)].into();
        let function =
            FunctionStats { name: "hello".into(), calls: calls_by_status, ..FunctionStats::default() };
        let worker = WorkerStats { state: "serving".into(), calls, ..WorkerStats::default() };
        NodeStats { pid: 7, functions: vec![function], workers: vec![worker], ..NodeStats::default() }
    }

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn it_shows_functions_and_workers_at_any_size() {
        let mut view =
            View { now: stats(500), then: stats(100), at: Instant::now(), between: PERIOD, trouble: None };
        let text = screen(&view, 100, 12);
        assert!(text.contains("hello") && text.contains("400.0") && text.contains("serving"), "{text}");
        assert!(text.contains("node 7") && text.contains("q quits"), "{text}");
        for (width, height) in [(1, 1), (10, 3), (300, 2)] {
            let _ = screen(&view, width, height);
        }
        view.look(Err("no node listens".to_owned()));
        assert!(screen(&view, 100, 12).contains("no node listens; the last numbers are shown"));
        view.look(Ok(stats(501)));
        assert_eq!((view.then.functions[0].calls["OK"], view.trouble), (500, None));
    }

    #[test]
    fn keys_that_end_it() {
        let key = |code, modifiers| ends(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
