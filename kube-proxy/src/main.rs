//! Parse, build, run: all the wiring of the program.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use kube_proxy::cli::{self, Command, Flags};
use kube_proxy::config::{self, Loaded};
use kube_proxy::health::Health;
use kube_proxy::metrics::Metrics;
use kube_proxy::proxy::{self, Setup};
use kube_proxy::source::Source;
use kube_proxy::{dataplane, events, logging, node, oneshot, server};
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
        Ok(Command::Help) => cli::help(),
        Ok(Command::Version { raw }) => cli::version(raw),
        Err(error) => {
            eprintln!("{}\nError: {error}", cli::help());
            return ExitCode::FAILURE;
        }
    };
    // Who does not read the rest does not want it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn run(flags: &Flags) -> ExitCode {
    let loaded = match config::load(flags, oneshot::choose_mode(flags)) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    logging::start(loaded.config.verbosity);
    info!(version = env!("CARGO_PKG_VERSION"), "Version info");
    oneshot::log_chosen_mode(flags, &loaded);
    for note in &loaded.notes {
        warn!("{note}");
    }
    match oneshot::run(flags, &loaded) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(err) => return failed(&err),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(work(loaded));
        // A credential plugin that hangs must not hold up the end.
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|err| failed(&err))
}

fn failed(err: &anyhow::Error) -> ExitCode {
    error!(err = format!("{err:#}"), "command failed");
    ExitCode::FAILURE
}

/// Runs everything until one part ends. Rules stay in the kernel however that happens: the next proxy takes
/// over from them.
async fn work(Loaded { config, file, .. }: Loaded) -> anyhow::Result<ExitCode> {
    let node_name: Arc<str> = node::name(config.hostname_override.as_deref())?.into();
    node::set_oom_score_adj(config.oom_score_adj);
    let metrics = Arc::new(Metrics::new()?);
    let source = Source::new(&config.source, &node_name)?;
    // Without an API server there is nobody to announce a Node, or its end.
    let with_api = matches!(source, Source::Api { .. });
    let health = Arc::new(Health::new(config.sync_period, !with_api));
    let (sender, changes) = mpsc::channel(WAITING_CHANGES);
    let (local_addresses, watching) = node::addresses::watch();
    let (recorder, recorded) = events::recorder();
    recorder.started();
    let (health_checks, checks) = server::health_checks();
    let setup = Setup {
        config: config.clone(),
        node_name,
        local_addresses,
        node_patience: if with_api { NODE_PATIENCE } else { Duration::ZERO },
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        health_checks,
        remove_others: dataplane::leftovers::begin_to_remove_others,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    node::sysctl::set_conntrack(&config.conntrack);
    let looping = proxy::spawn(setup, changes, dataplane::open)?;
    let endless = tokio::select! {
        ended = looping => return ended.map(|()| ExitCode::SUCCESS),
        never = source.run(Arc::clone(&metrics), sender, recorded) => match never {},
        never = watching => match never {},
        ended = server::run(&config, health, metrics, checks, recorder) => ended,
        ended = config::changed(file) => ended,
        // As a shell reports a program that a signal ended, which is what upstream's kube-proxy does.
        _ = terminate.recv() => return Ok(ExitCode::from(128 + 15)),
        _ = interrupt.recv() => return Ok(ExitCode::from(128 + 2)),
    };
    endless.map(|never| match never {})
}
