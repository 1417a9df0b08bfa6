//! Parse, build, run: all the wiring of the program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use kube_proxy::cli::{self, Command, Flags};
use kube_proxy::config::{self, Config, Current, Loaded};
use kube_proxy::dataplane::leftovers::{self, Remover};
use kube_proxy::health::Health;
use kube_proxy::logging::Levels;
use kube_proxy::metrics::Metrics;
use kube_proxy::node::privileges::{self, Capabilities};
use kube_proxy::proxy::{self, Setup};
use kube_proxy::server::About;
use kube_proxy::source::Source;
use kube_proxy::status::{self, Status};
use kube_proxy::{dataplane, events, logging, node, oneshot, plan, server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// So many changes may wait for the loop before a source must wait.
const WAITING_CHANGES: usize = 4096;
/// As long as upstream waits for the Node to have an address.
const NODE_PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let text = match cli::parse(arguments.map(|argument| argument.to_string_lossy().into_owned())) {
        Ok(Command::Run(flags)) => return run(&flags),
        Ok(Command::Status { address, json }) => return show_status(address, json),
        Ok(Command::Help) => cli::help(),
        Ok(Command::Version { raw }) => cli::version(raw),
        Err(error) => {
            eprintln!("{}\nError: {error}", cli::help());
            let plans = std::env::args_os().nth(1).is_some_and(|first| first == cli::PLAN);
            return trouble(plans);
        }
    };
    // Who does not read the rest does not want it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Shows what the proxy at an address does; a failure when it is not healthy, or not there.
fn show_status(address: SocketAddr, json: bool) -> ExitCode {
    let shown = status::ask(address).and_then(|answer| {
        let report = status::read(&answer)?;
        let text = if json { answer } else { status::text(&report) };
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(report.healthy)
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> ExitCode {
    privileges::use_permitted();
    let loaded = match config::load(flags, oneshot::choose_mode(flags)) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("Error: {error}");
            return trouble(flags.plan.is_some());
        }
    };
    let levels = logging::start(&loaded.config.logging);
    info!(version = env!("CARGO_PKG_VERSION"), "Version info");
    if loaded.config.logging.verbosity >= 1 {
        for (name, value) in &flags.values {
            info!(target: logging::PLAIN, "FLAG: --{name}={value:?}");
        }
    }
    oneshot::log_chosen_mode(flags, &loaded);
    for note in &loaded.notes {
        warn!("{note}");
    }
    if let Some(plan) = flags.plan {
        return on_a_runtime(print_plan(plan, loaded)).unwrap_or_else(|err| {
            failed(&err);
            trouble(true)
        });
    }
    match oneshot::run(flags, &loaded) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(err) => return failed(&err),
    }
    on_a_runtime(work(flags, loaded, levels)).unwrap_or_else(|err| failed(&err))
}

fn on_a_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work);
    // A credential plugin that hangs must not hold up the end.
    runtime.shutdown_background();
    ended
}

fn failed(err: &anyhow::Error) -> ExitCode {
    error!(err = format!("{err:#}"), "command failed");
    ExitCode::FAILURE
}

/// Where a plan is asked for, 1 says that the kernel differs from it.
fn trouble(plans: bool) -> ExitCode {
    if plans {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

async fn print_plan(wanted: cli::Plan, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let answer = plan::make(wanted, &loaded).await?;
    let text = answer.print(wanted, &loaded.config);
    // Who does not read the rest does not want it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if answer.differs() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Does what a proxy needs more privileges for than it keeps, and gives up the others.
fn initialise(config: &Config) -> anyhow::Result<Remover> {
    node::sysctl::set_conntrack(&config.conntrack);
    let remove_others = leftovers::remover(config.mode);
    // What is started after this, threads and programs, has no more than this.
    let kept = privileges::give_up_all_but(Capabilities::of_proxy(config));
    let kept = kept.context("cannot give up capabilities")?;
    info!(%kept, "Gave up all other capabilities");
    Ok(remove_others)
}

/// Runs everything until one part ends. Rules stay in the kernel however that happens: the next proxy takes
/// over from them.
async fn work(flags: &Flags, loaded: Loaded, levels: Levels) -> anyhow::Result<ExitCode> {
    let configz = Arc::new(Mutex::new(loaded.in_effect()?));
    let Loaded { config, file, .. } = loaded;
    let node_name: Arc<str> = node::name(config.hostname_override.as_deref())?.into();
    node::set_oom_score_adj(config.oom_score_adj);
    // Before any file is read: one that cannot be read later is better not read now.
    let remove_others = initialise(&config)?;
    let metrics = Arc::new(Metrics::new()?);
    metrics.set_features(&config.features.all())?;
    let source = Source::new(&config.source, &node_name, Arc::clone(&metrics))?;
    // Without an API server there is nobody to announce a Node, or its end.
    let with_api = matches!(source, Source::Api { .. });
    let health = Arc::new(Health::new(config.sync_period, !with_api));
    let (sender, changes) = mpsc::channel(WAITING_CHANGES);
    let (local_addresses, watching) = node::addresses::watch();
    let (recorder, recorded) = events::recorder();
    recorder.started(config.mode);
    let (health_checks, checks) = server::health_checks();
    let status = Arc::new(Status::new(&config, &node_name, Arc::clone(&health)));
    let setup = Setup {
        config: config.clone(),
        node_name,
        local_addresses,
        node_patience: if with_api { NODE_PATIENCE } else { Duration::ZERO },
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        status: Arc::clone(&status),
        health_checks,
        remove_others,
    };
    let profiling = config.profiling.then(|| levels.clone());
    let about = About::new(&config, flags, Arc::clone(&configz), profiling, status);
    let current = Current {
        file,
        flags: flags.clone(),
        config: config.clone(),
        levels,
        told: configz,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let looping = proxy::spawn(setup, changes, dataplane::open)?;
    let (end, ending) = server::ending();
    let mut serving = pin!(server::run(
        &config, health, metrics, about, checks, recorder, ending
    ));
    let endless = tokio::select! {
        ended = looping => return ended.map(|()| ExitCode::SUCCESS),
        never = source.run(sender, recorded) => match never {},
        never = watching => match never {},
        ended = &mut serving => ended,
        ended = config::changed(current) => ended,
        signal = async {
            tokio::select! {
                _ = terminate.recv() => 15,
                _ = interrupt.recv() => 2,
            }
        } => {
            tokio::select! {
                _ = serving => {}
                () = end.finish() => {}
            }
            // As a shell reports a program that a signal ended, which is what upstream's kube-proxy does.
            return Ok(ExitCode::from(128 + signal));
        }
    };
    endless.map(|never| match never {})
}
