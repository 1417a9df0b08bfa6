//! A kube-proxy is killed, one endpoint moves, and a successor starts on the node as it was left: how long until the
//! endpoint's new place answers, and whether anything was not answered meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use super::figures::{Phase, Restart, milliseconds};
use super::ground::{FAR_DOOR, Ground};
use super::objects::{moved_slice, moving_target};
use super::start::{SETTLE, ended, pause, sleep_precisely};
use super::usage;
use crate::client::Access;
use crate::interrupt;
use crate::probe::knock;
use crate::proxy::{KubeProxy, Setup};

/// How long a handshake may take before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(20);

/// Moves the endpoint, starts a kube-proxy where one was killed, and asks until the new place answers.
pub(super) fn measure(
    runtime: &Runtime,
    access: &Access,
    ground: &Ground,
    setup: &Setup,
    moved: &mut usize,
    within: Duration,
) -> Result<Phase<Restart>> {
    *moved += 1;
    let (path, slice) = moved_slice(*moved);
    let wanted = if moved.is_multiple_of(2) { 0 } else { FAR_DOOR };
    runtime.block_on(async { access.connect().await?.replace(&path, &slice).await })?;
    let begun = Instant::now();
    let proxy = KubeProxy::start(ground.node()?, setup)?;
    let mut lost = 0;
    let answered = ground.asking()?.enter(|| {
        sleep_precisely()?;
        loop {
            match knock(moving_target().at, &ground.doors, PATIENCE)? {
                Some(taken) if taken.door == wanted => return Ok(Some(taken.at)),
                Some(_) => {}
                None => lost += 1,
            }
            interrupt::check()?;
            if begun.elapsed() > within {
                return Ok(None);
            }
            ensure!(proxy.is_running(), "{}", ended(&proxy));
            sleep(pause(begun.elapsed()));
        }
    })??;
    let Some(at) = answered else {
        return Ok(Phase::Unfinished {
            within_seconds: within.as_secs_f64(),
            reached: "restart: the endpoint that was moved meanwhile did not answer".to_owned(),
        });
    };
    sleep(SETTLE);
    let cpu = usage::cpu(proxy.id())?;
    Ok(Phase::Done(Restart {
        moved: milliseconds(at.duration_since(begun)),
        cpu: milliseconds(cpu.all()),
        children: milliseconds(cpu.children),
        lost,
    }))
}
