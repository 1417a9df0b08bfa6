//! Which kube-proxy is measured when: starts by turns, each on an untouched node, then the moves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::Programming;
use super::api::{Api, ApiKind};
use super::figures::{ApiFloor, Candidate, Restores, milliseconds};
use super::ground::{ApiSite, Ground};
use super::objects::{Creation, Size, Target, moving_target};
use super::{floors, moves, restart, restores, start, usage};
use crate::interrupt;
use crate::net::{Family, address};
use crate::proxy::{self, Setup, Source};
use crate::scenario::Mode;

/// A kube-proxy whose start takes longer is started once.
const LONG_START: Duration = Duration::from_secs(20);

/// A kube-proxy that takes part.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    name: String,
    program: PathBuf,
    mode: Mode,
    size: u64,
}

impl Contender {
    /// Checks that the program is there.
    pub(super) fn new(name: &str, program: &Path, mode: Mode) -> Result<Self> {
        let file = std::fs::metadata(program);
        let size = file.with_context(|| format!("find {}", program.display()))?.len();
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            mode,
            size,
        })
    }

    /// What the programs of its mode take alone, with the rules that it has put in force. `None` where there are none.
    fn restores(&self, ground: &Ground, options: &Programming) -> Result<Option<Restores>> {
        let Some(program) = self.mode.program_of_iptables() else {
            return Ok(None);
        };
        let within = Duration::from_secs(options.restore_for);
        restores::measure(program, ground, within).map(Some)
    }

    fn setup(&self, kubeconfig: PathBuf, folder: &Path) -> Setup {
        Setup {
            program: self.program.clone(),
            folder: folder.to_owned(),
            source: Source::Api(kubeconfig),
            config: proxy::config(self.mode.configured()),
        }
    }
}

/// An API that holds the cluster.
#[derive(Debug)]
pub(super) struct Site<'a> {
    runtime: &'a Runtime,
    size: Size,
    api: Api,
    place: ApiSite,
}

impl<'a> Site<'a> {
    /// Starts the API and loads the cluster.
    pub(super) fn make(runtime: &'a Runtime, kind: ApiKind, size: Size) -> Result<Self> {
        let place = ApiSite::make()?;
        let api = Api::start(kind, &place)?;
        api.load(runtime, ground_objects(size).into_iter())?;
        let took = api.load(runtime, size.load())?;
        progress(&format!(
            "{kind}: {} Services loaded in {took:.1?}",
            size.services
        ));
        Ok(Self {
            runtime,
            size,
            api,
            place,
        })
    }

    /// What the API costs by itself.
    pub(super) fn floor(&self) -> Result<ApiFloor> {
        floors::api(self.runtime, self.api.access(), &mut 0)
    }

    /// The last in the order of names, and others at random.
    fn sample(&self, count: usize) -> Vec<Target> {
        let mut numbers: Vec<usize> = (0..self.size.services).collect();
        let last = numbers.pop();
        fastrand::shuffle(&mut numbers);
        let chosen = last.into_iter().chain(numbers).take(count.max(1));
        chosen.map(|number| self.size.target(number)).collect()
    }
}

/// Measures everything about every contender. A failure ends the measuring of its contender only.
pub(super) fn all(site: &Site<'_>, contenders: &[Contender], options: &Programming) -> Vec<Candidate> {
    let mut measured: Vec<Candidate> = contenders
        .iter()
        .map(|contender| Candidate {
            name: contender.name.clone(),
            binary: contender.size,
            ..Candidate::default()
        })
        .collect();
    let mut finished = vec![false; contenders.len()];
    let mut moved = 0;
    for round in 1..=options.starts.max(1) {
        for ((contender, candidate), finished) in contenders.iter().zip(&mut measured).zip(&mut finished) {
            if !*finished && !interrupt::happened() {
                let is_last = round == options.starts.max(1);
                let done = one_start(site, contender, candidate, options, is_last, &mut moved);
                *finished = done.unwrap_or_else(|error| failed(candidate, "starts and moves", &error));
            }
        }
    }
    for (contender, candidate) in contenders.iter().zip(&mut measured) {
        if !interrupt::happened()
            && let Err(error) = idle(site.runtime, contender, candidate, options)
        {
            failed(candidate, "idle", &error);
        }
    }
    measured
}

fn failed(candidate: &mut Candidate, phase: &str, error: &anyhow::Error) -> bool {
    let failure = format!("{}: {phase}: {error:#}", candidate.name);
    progress(&failure);
    candidate.failures.push(failure);
    true
}

/// One start; if it was the last one or a long one, also everything that needs a synced kube-proxy. Returns whether
/// that is now done.
fn one_start(
    site: &Site<'_>,
    contender: &Contender,
    candidate: &mut Candidate,
    options: &Programming,
    is_last: bool,
    moved: &mut usize,
) -> Result<bool> {
    let ground = Ground::lay_out(&site.place)?;
    contender.mode.prepare(&ground.node()?.namespace)?;
    let folder = tempfile::Builder::new().prefix("lab-bench-").tempdir()?;
    let setup = contender.setup(site.api.kubeconfig(), folder.path());
    wait_for_rest(Duration::from_secs(options.rest))?;
    let sample = site.sample(options.sample);
    let (mut proxy, children, start) = start::measure(&ground, &setup, &sample, options.give_up())?;
    progress(&format!("{}: {start}", contender.name));
    let took_long = start
        .done()
        .is_none_or(|start| start.all > milliseconds(LONG_START));
    let is_synced = start.done().is_some();
    candidate.starts.push(start);
    if !(is_last || took_long) {
        return Ok(false);
    }
    candidate.children = children.peak();
    drop(children);
    candidate.synced = Some(usage::memory(proxy.id())?);
    if is_synced {
        let bounds = moves::Bounds {
            rounds: options.moves,
            stop_after: Duration::from_secs(options.moves_for),
            each_within: options.give_up(),
        };
        let access = site.api.access();
        let measured = moves::measure(site.runtime, access, &ground, &mut proxy, moved, bounds)?;
        progress(&format!("{}: {measured}", contender.name));
        candidate.moves = Some(measured);
        candidate.moved = Some(usage::memory(proxy.id())?);
        drop(proxy);
        let within = options.give_up();
        let restart = restart::measure(site.runtime, access, &ground, &setup, moved, within)?;
        progress(&format!("{}: {restart}", contender.name));
        candidate.restart = Some(restart);
        candidate.restores = contender.restores(&ground, options)?;
    }
    Ok(true)
}

/// A cluster with one Service, in an API of its own, where nothing happens.
fn idle(
    runtime: &Runtime,
    contender: &Contender,
    candidate: &mut Candidate,
    options: &Programming,
) -> Result<()> {
    let size = Size {
        services: 0,
        endpoints: 0,
    };
    let place = ApiSite::make()?;
    let api = Api::start(ApiKind::InProcess, &place)?;
    api.load(runtime, ground_objects(size).into_iter())?;
    api.load(runtime, Size::moving().into_iter())?;
    let ground = Ground::lay_out(&place)?;
    contender.mode.prepare(&ground.node()?.namespace)?;
    let folder = tempfile::Builder::new().prefix("lab-bench-").tempdir()?;
    let setup = contender.setup(api.kubeconfig(), folder.path());
    let (proxy, _, start) = start::measure(&ground, &setup, &[moving_target()], options.give_up())?;
    start
        .done()
        .context("the only Service of an empty cluster did not answer")?;
    let before = usage::cpu(proxy.id())?;
    let idle = options.idle.max(1);
    interrupt::sleep(Duration::from_secs(idle.into()), || Ok(()))?;
    let used = usage::cpu(proxy.id())?.since(before);
    candidate.idle_cpu = Some(milliseconds(used.all() / idle));
    candidate.idle = Some(usage::memory(proxy.id())?);
    Ok(())
}

fn ground_objects(size: Size) -> Vec<Creation> {
    size.ground("node-1", address::node(1, Family::V4))
}

/// Waits until the CPUs have little to do: what an earlier round left in the kernel is cleared away by then. Not
/// for ever, because the machine may have other work; the report shows its load.
fn wait_for_rest(at_most: Duration) -> Result<()> {
    let cpus = u32::try_from(std::thread::available_parallelism()?.get())?;
    let begun = Instant::now();
    while begun.elapsed() < at_most {
        let (before, from) = (usage::idle_time()?, Instant::now());
        interrupt::sleep(Duration::from_millis(300), || Ok(()))?;
        if (usage::idle_time()? - before) / cpus > from.elapsed().mul_f64(0.85) {
            break;
        }
    }
    Ok(())
}

fn progress(line: &str) {
    eprintln!("{line}");
}
