//! `lab scenarios`: plays scenarios from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use lab::scenario::file::SourceKind;
use lab::scenario::{Player, folder, leave_out_impossible, plays};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Play only those whose FILE::MODE::FAMILY contains one of these texts
    filters: Vec<String>,
    /// The program to play with [default: the kube-proxy beside this program]
    #[arg(long, value_name = "PATH")]
    kube_proxy: Option<PathBuf>,
    /// The folder with the scenarios
    #[arg(long, value_name = "PATH", default_value_os = folder().as_os_str())]
    folder: PathBuf,
    /// Feed kube-proxy from here, and leave out what cannot be played so: manifests, api
    #[arg(long)]
    source: Option<SourceKind>,
    /// Play so many at the same time [default: as many as there are processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the names and behaviours only
    #[arg(long)]
    list: bool,
    /// Keep the lab of a failed scenario up until Enter is pressed
    #[arg(long)]
    pause: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut plays = plays(&arguments.folder, arguments.source)?;
    let wanted =
        |name: &str| arguments.filters.is_empty() || arguments.filters.iter().any(|f| name.contains(f));
    plays.retain(|play| wanted(&play.name()));
    if arguments.list {
        for play in &plays {
            println!("{:<50} {}", play.name(), play.behaviour);
        }
        return Ok(ExitCode::SUCCESS);
    }
    leave_out_impossible(&mut plays);
    let player = Player {
        program: super::kube_proxy(arguments.kube_proxy.as_ref())?,
        on_failure: arguments.pause.then_some(pause),
    };
    let start = Instant::now();
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or_else(processors).max(1);
    let (next, failed, output) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(play) = plays.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let result = player.play(play);
                    let (name, seconds) = (play.name(), start.elapsed().as_secs_f32());
                    let _whole_lines = output.lock();
                    match result {
                        Ok(()) => println!("ok     {name} ({seconds:.1} s)"),
                        Err(failure) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("FAILED {name} ({seconds:.1} s)\n{failure}");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let seconds = start.elapsed().as_secs_f32();
    let sctp = if lab::sctp::has_sockets() {
        "real associations"
    } else {
        "only begun, as this kernel has no SCTP sockets"
    };
    println!(
        "{} ok, {failed} failed, in {seconds:.1} s; SCTP: {sctp}",
        plays.len() - failed
    );
    Ok(if failed == 0 && !plays.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn pause(lab: &lab::net::Lab) {
    println!("The lab is still up. Look around with:");
    for member in lab.members() {
        println!("  nsenter --net={}   # {}", member.namespace.path(), member.name);
    }
    println!("Press Enter to remove it.");
    // At the end of the input there is nobody to wait for.
    let _ = std::io::stdin().read_line(&mut String::new());
}
