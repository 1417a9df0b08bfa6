//! What happens in the demo, in order, and what is measured.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::screen::Screen;
use super::stage::{PODS, Stage};
use super::terminal::Style;
use super::traffic::{Counts, LATELY, Path, Traffic, Watcher};
use crate::interrupt;
use crate::probe::Outcome;

/// How long a change may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a pod goes on serving after it is no endpoint any more, as a terminating pod does.
const GRACE: Duration = Duration::from_millis(500);

/// Tells it, looking at each chapter for a while, and sums it up.
pub(super) fn tell(stage: &mut Stage, screen: &mut Screen, look: Duration) -> Result<String> {
    let laid_out = screen.elapsed();
    screen.title("kube-proxy · Service my-app, port 80 → 8080, on two nodes");
    let text = format!(
        "two nodes, six pods, a client outside, a Kubernetes API: up in {}",
        ms(laid_out)
    );
    screen.event(Style::Plain, &text);
    screen.draw(None);

    let paths = stage.paths()?;
    let started = start(stage, &paths)?;
    let text = format!(
        "kube-proxy started on both nodes: every way answers after {}",
        ms(started)
    );
    screen.event(Style::Green, &text);

    let mut teller = Teller {
        stage,
        screen,
        traffic: Traffic::start(paths),
        look,
        figures: Vec::new(),
    };
    teller.figure("start, every way answers", &ms(started));
    teller.look(3)?;
    teller.scale_up(3, 5)?;
    teller.scale_down(5, 2)?;
    teller.restart(2)?;
    teller.scale_down(2, 0)?;
    teller.scale_up(0, 3)?;
    teller.summary()
}

/// Starts the kube-proxies and waits until every way to the Service answers.
fn start(stage: &mut Stage, paths: &[Path]) -> Result<Duration> {
    let start = Instant::now();
    stage.start_proxies()?;
    for path in paths {
        while path.ask()?.answer().is_none() {
            stage.check_proxies()?;
            let what = format!("{} from {} does not answer", path.to, path.from);
            ensure!(start.elapsed() < PATIENCE && !interrupt::happened(), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(start.elapsed())
}

struct Teller<'a> {
    stage: &'a mut Stage,
    screen: &'a mut Screen,
    traffic: Traffic,
    look: Duration,
    /// For the summary.
    figures: Vec<String>,
}

impl Teller<'_> {
    /// Shows the traffic for a while.
    fn look(&mut self, endpoints: usize) -> Result<()> {
        let pods = if endpoints == 1 { "endpoint" } else { "endpoints" };
        self.screen.title(format!(
            "kube-proxy · Service my-app, port 80 → 8080 · {endpoints} {pods}"
        ));
        interrupt::sleep(self.look, || {
            self.screen.draw(Some(&self.traffic));
            self.stage.check_proxies()
        })?;
        self.screen.chapter(&self.traffic);
        Ok(())
    }

    /// More endpoints: how long until each new one is used.
    fn scale_up(&mut self, from: usize, to: usize) -> Result<()> {
        self.stage.serve(to)?;
        let watcher = Watcher::start(self.watched());
        let changed = Instant::now();
        self.stage.publish(to)?;
        let new: Vec<_> = PODS[from..to].iter().map(|(pod, _)| Some(*pod)).collect();
        self.settle("the new pods are not in use everywhere", |counts| {
            new.iter().all(|pod| counts.lately().any(|server| server == *pod))
        })?;
        let outcomes = watcher.stop();
        // Answered everywhere by now, so that a refusal would be wrong again.
        self.traffic.set_empty(false);
        let (mut pods, mut times, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
        for (pod, _) in &PODS[from..to] {
            let first = outcomes
                .iter()
                .find(|(when, outcome)| *when > changed && is_by(outcome, pod));
            let (when, _) = first.with_context(|| format!("{pod} got no request after the change"))?;
            let after = *when - changed;
            slowest = slowest.max(after);
            pods.push(pod.replace("my-app", ""));
            times.push(ms(after));
        }
        let (pods, times) = (pods.join(", "), times.join(", "));
        let text = format!("{from} → {to}: first packet at my-app{pods} after {times}");
        self.screen.event(Style::Green, &text);
        self.figure(&format!("{from} → {to}, all new pods in use"), &ms(slowest));
        self.look(to)
    }

    /// Fewer endpoints: how long until no removed one is used.
    fn scale_down(&mut self, from: usize, to: usize) -> Result<()> {
        self.traffic.set_empty(to == 0);
        let watcher = Watcher::start(self.watched());
        thread::sleep(Duration::from_millis(50));
        let changed = Instant::now();
        self.stage.publish(to)?;
        let removed: Vec<_> = PODS[to..from].iter().map(|(pod, _)| Some(*pod)).collect();
        self.settle("removed pods are still in use somewhere", |counts| {
            counts.lately().count() == LATELY && !counts.lately().any(|server| removed.contains(&server))
        })?;
        let outcomes = watcher.stop();
        self.stage.unserve(to);
        let removed = |outcome: &Outcome| PODS[to..from].iter().any(|(pod, _)| is_by(outcome, pod));
        let last = outcomes
            .iter()
            .rev()
            .find(|(when, outcome)| *when > changed && removed(outcome));
        let after = last.map_or_else(|| "no time".to_owned(), |(when, _)| ms(*when - changed));
        let text = match to {
            0 => format!("{from} → 0: refused at once, last packet at a pod after {after}"),
            _ => format!("{from} → {to}: last packet at a removed pod after {after}"),
        };
        self.screen.event(Style::Green, &text);
        self.figure(&format!("{from} → {to}, no removed pod in use"), &after);
        self.look(to)
    }

    /// Both kube-proxies die and come back, and nobody notices.
    fn restart(&mut self, endpoints: usize) -> Result<()> {
        let failed = self.failed();
        self.stage.kill_proxies();
        self.screen.event(
            Style::Yellow,
            "both kube-proxies killed: the rules stay in the kernel",
        );
        self.screen.title(format!(
            "kube-proxy is dead · Service my-app · {endpoints} endpoints"
        ));
        interrupt::sleep(self.look / 2, || {
            self.screen.draw(Some(&self.traffic));
            Ok(())
        })?;
        self.stage.start_proxies()?;
        self.settle("", |_| true)?;
        let failed = self.failed() - failed;
        let style = if failed == 0 { Style::Green } else { Style::Red };
        self.screen.event(
            style,
            &format!("both started again: {failed} requests failed meanwhile"),
        );
        self.figure("killed and started again", &format!("{failed} requests failed"));
        self.look(endpoints)
    }

    /// Waits until every way to the Service has settled as it should, and at least as long as pods take to end.
    fn settle(&mut self, unless: &str, settled: impl Fn(&Counts) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            interrupt::sleep(GRACE / 5, || {
                self.screen.draw(Some(&self.traffic));
                self.stage.check_proxies()
            })?;
            if start.elapsed() >= GRACE && self.traffic.counts().iter().all(&settled) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "ten seconds after the change, {unless}"
            );
        }
    }

    /// The way that changes are timed on: a pod to the ClusterIP.
    fn watched(&self) -> &Path {
        &self.traffic.paths[0]
    }

    fn failed(&self) -> usize {
        self.traffic.counts().iter().map(|counts| counts.failed).sum()
    }

    fn figure(&mut self, what: &str, value: &str) {
        self.figures.push(format!("    {what:<31}{value}\n"));
    }

    fn summary(mut self) -> Result<String> {
        self.screen.draw(Some(&self.traffic));
        let counts = self.traffic.counts();
        let answered: usize = counts.iter().map(|counts| counts.answered).sum();
        let refused: usize = counts.iter().map(|counts| counts.refused).sum();
        let failed = self.failed();
        for (node, memory, cpu) in self.stage.costs() {
            let megabytes = memory / 1_000_000;
            let value = format!("{megabytes} MB of memory, {} of CPU", ms(cpu));
            self.figure(&format!("restarted kube-proxy of {node}"), &value);
        }
        let seconds = self.screen.elapsed().as_secs();
        self.figure("all of it", &format!("{seconds} s"));
        let painter = self.screen.painter();
        let style = if failed == 0 { Style::Green } else { Style::Red };
        let failures = painter.paint(style, &format!("{failed} failed"));
        let head = painter.paint(Style::Bold, "Summary");
        let requests = format!("{answered} answered, {refused} refused (no endpoints), {failures}");
        let text = format!(
            "\n  {head}\n    {:<31}{requests}\n{}",
            "requests",
            self.figures.concat()
        );
        let failure = counts
            .into_iter()
            .find_map(|counts| counts.last_failure)
            .unwrap_or_default();
        ensure!(
            failed == 0,
            "{text}\n{failed} requests failed, the last of them so: {failure}"
        );
        Ok(text.trim_end().to_owned())
    }
}

fn is_by(outcome: &Outcome, pod: &str) -> bool {
    outcome.answer().is_some_and(|answer| answer.server == pod)
}

fn ms(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}
