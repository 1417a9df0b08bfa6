//! One endpoint moved: from just before the write to the API to the first packet at the new endpoint.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use super::figures::{Moves, Phase, Times, milliseconds};
use super::ground::{FAR_DOOR, Ground};
use super::objects::{moved_slice, moving_target};
use super::start::{ended, pause, sleep_precisely};
use super::usage;
use crate::client::{Access, Connection};
use crate::interrupt;
use crate::probe::knock;
use crate::proxy::KubeProxy;

/// How long a handshake may take before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// Rounds that are thrown away.
const WARM_UP: usize = 1;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most moves.
    pub(super) rounds: usize,
    /// No further move begins after this long.
    pub(super) stop_after: Duration,
    /// A move that takes this long is given up, and so is the phase.
    pub(super) each_within: Duration,
}

/// Moves the endpoint again and again. `moved` counts the moves on this API and goes on from earlier phases.
pub(super) fn measure(
    runtime: &Runtime,
    access: &Access,
    ground: &Ground,
    proxy: &mut KubeProxy,
    moved: &mut usize,
    bounds: Bounds,
) -> Result<Phase<Moves>> {
    let mut connection = runtime.block_on(access.connect())?;
    ground.asking()?.enter(|| {
        sleep_precisely()?;
        let mut tally = Tally::default();
        let begun = Instant::now();
        let mut cpu_before = usage::Cpu::default();
        for round in 0..bounds.rounds + WARM_UP {
            if round == WARM_UP {
                tally = Tally::default();
                cpu_before = usage::cpu(proxy.id())?;
            }
            if round > WARM_UP && begun.elapsed() > bounds.stop_after {
                break;
            }
            *moved += 1;
            let taken;
            (connection, taken) = one_move(runtime, connection, ground, *moved, &mut tally, bounds)?;
            let Some(latency) = taken else {
                ensure!(proxy.is_running(), "{}", ended(proxy));
                let reached = format!("move {round} was not seen");
                let within_seconds = bounds.each_within.as_secs_f64();
                return Ok(Phase::Unfinished {
                    within_seconds,
                    reached,
                });
            };
            tally.latencies.push(latency);
            rest(latency);
        }
        let cpu = usage::cpu(proxy.id())?.since(cpu_before);
        let rounds = u32::try_from(tally.latencies.len())?;
        Ok(Phase::Done(Moves {
            latency: Times::of(&tally.latencies).context("no move was measured")?,
            cpu: milliseconds(cpu.all() / rounds),
            children: milliseconds(cpu.children / rounds),
            lost: tally.lost,
            asked: tally.asked,
            cadence: Times::of(&tally.gaps).context("no handshake was measured")?,
        }))
    })?
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    gaps: Vec<Duration>,
    lost: usize,
    asked: usize,
}

/// Writes the change and asks until the new endpoint takes a handshake; `None` when it does not in time.
fn one_move(
    runtime: &Runtime,
    mut connection: Connection,
    ground: &Ground,
    moved: usize,
    tally: &mut Tally,
    bounds: Bounds,
) -> Result<(Connection, Option<Duration>)> {
    let (path, slice) = moved_slice(moved);
    let wanted = if moved.is_multiple_of(2) { 0 } else { FAR_DOOR };
    let begun = Instant::now();
    let write = runtime.spawn(async move {
        let written = connection.replace(&path, &slice).await;
        written.map(|()| connection)
    });
    let mut before = begun;
    let latency = loop {
        let taken = knock(moving_target().at, &ground.doors, PATIENCE)?;
        tally.asked += 1;
        let now = taken.map_or_else(Instant::now, |taken| taken.at);
        tally.gaps.push(now - before);
        before = now;
        match taken {
            Some(taken) if taken.door == wanted => break Some(now - begun),
            Some(_) => {}
            None => tally.lost += 1,
        }
        interrupt::check()?;
        if begun.elapsed() > bounds.each_within {
            break None;
        }
        sleep(pause(begun.elapsed()));
    };
    let connection = runtime.block_on(write)??;
    Ok((connection, latency))
}

/// Lets a kube-proxy come to rest before the next move: as long as the last one took, and a random while, so that
/// moves meet no timer of anybody's in step.
fn rest(latency: Duration) {
    let random = Duration::from_micros(fastrand::u64(10_000..40_000));
    sleep(random + latency.min(Duration::from_secs(10)));
}
