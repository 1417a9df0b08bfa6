//! Start → every sampled Service answers.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_timerslack;

use super::figures::{Phase, Start, milliseconds};
use super::ground::Ground;
use super::objects::Target;
use super::usage::{self, Children};
use crate::interrupt;
use crate::probe::{Door, knock};
use crate::proxy::{KubeProxy, Setup};

/// How long a handshake may take before it counts as not taken.
const PATIENCE: Duration = Duration::from_millis(5);

/// From the last answer until CPU time and memory are read: what is still to be done is done by then, and child
/// processes have ended.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// Lets sleeps end when they should, instead of up to 50 µs later.
pub(super) fn sleep_precisely() -> Result<()> {
    set_timerslack(1).context("set the timer slack of a measuring thread")
}

/// How long to wait until the next handshake: a hundredth of the time that has passed, so that a figure is right
/// to about 1 % and the load of asking stays small however long it takes.
pub(super) fn pause(elapsed: Duration) -> Duration {
    (elapsed / 100).clamp(Duration::from_micros(100), Duration::from_millis(50))
}

/// Starts a kube-proxy and asks all of the sample until each has answered, then lets it settle.
pub(super) fn measure(
    ground: &Ground,
    setup: &Setup,
    sample: &[Target],
    within: Duration,
) -> Result<(KubeProxy, Children, Phase<Start>)> {
    let node = ground.node()?;
    let begun = Instant::now();
    let mut proxy = KubeProxy::start(node, setup)?;
    let children = Children::watch(proxy.id());
    let answered = ground.asking()?.enter(|| {
        sleep_precisely()?;
        ask_until_all_answer(&ground.doors, sample, begun + within, &mut proxy)
    })??;
    let times = &answered.times;
    let (Some(first), Some(last), true) = (times.first(), times.last(), answered.left == 0) else {
        let reached = format!("{} of {} sampled Services answered", times.len(), sample.len());
        let within_seconds = within.as_secs_f64();
        return Ok((
            proxy,
            children,
            Phase::Unfinished {
                within_seconds,
                reached,
            },
        ));
    };
    sleep(SETTLE);
    let cpu = usage::cpu(proxy.id())?;
    let since = |at: &Instant| milliseconds(at.duration_since(begun));
    let start = Start {
        first: since(first),
        all: since(last),
        cpu: milliseconds(cpu.all()),
        children: milliseconds(cpu.children),
    };
    Ok((proxy, children, Phase::Done(start)))
}

struct Answered {
    /// When each Service answered first, in that order.
    times: Vec<Instant>,
    /// How many have not.
    left: usize,
}

fn ask_until_all_answer(
    doors: &[Door],
    sample: &[Target],
    deadline: Instant,
    proxy: &mut KubeProxy,
) -> Result<Answered> {
    let begun = Instant::now();
    let mut waiting: VecDeque<&Target> = sample.iter().collect();
    let mut times = Vec::with_capacity(sample.len());
    while let Some(target) = waiting.pop_front() {
        if let Some(taken) = knock(target.at, doors, PATIENCE)? {
            let endpoint = taken.endpoint;
            ensure!(
                target.has(endpoint),
                "{}: taken at {endpoint}, which is not its endpoint",
                target.at
            );
            times.push(taken.at);
            continue;
        }
        interrupt::check()?;
        waiting.push_back(target);
        if Instant::now() > deadline {
            break;
        }
        ensure!(proxy.is_running(), "{}", ended(proxy));
        sleep(pause(begun.elapsed()));
    }
    Ok(Answered {
        times,
        left: waiting.len(),
    })
}

/// What to say of a kube-proxy that ended by itself.
pub(super) fn ended(proxy: &KubeProxy) -> String {
    let log = proxy.log();
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(8)..].join("\n  ");
    format!("it ended by itself; its log ends with\n  {end}")
}
