//! `lab bench programming`: how fast and at what cost a kube-proxy programs a node, seen only from outside, through
//! packets and `/proc`, so that any kube-proxy can be measured and two can be compared.
//!
//! A cluster of N Services with E endpoints each is put into a Kubernetes API once. Then, by turns, each kube-proxy
//! is started on a node that is laid out anew, and pods ask a random sample of the Services until all have
//! answered; after the last start one endpoint is moved through the API many times, and once while the kube-proxy is
//! being restarted. The API, the node, both pods
//! and the asking thread share the machine's CPUs with the kube-proxy under test: figures hold for that.

mod api;
mod figures;
mod floors;
mod ground;
mod moves;
mod objects;
mod report;
mod restart;
mod restores;
mod rounds;
mod start;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::interrupt;
use crate::scenario::Mode;

pub use api::ApiKind;
use objects::Size;
pub use report::Report;
use report::{ApiReport, Machine};
use rounds::{Contender, Site};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Programming {
    /// Number of Services
    #[arg(long, default_value_t = 10_000)]
    pub services: usize,
    /// Endpoints of each Service
    #[arg(long, default_value_t = 10)]
    pub endpoints: usize,
    /// The kube-proxy to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub kube_proxy: Option<PathBuf>,
    /// Its mode: nftables, iptables, or iptables-legacy, which is iptables on a node that uses the older programs
    #[arg(long, value_name = "MODE", default_value_t = Mode::Nftables)]
    pub mode: Mode,
    /// Another kube-proxy to measure beside it
    #[arg(long, value_name = "PATH")]
    pub against: Option<PathBuf>,
    /// The other kube-proxy's mode [default: the same]
    #[arg(long, value_name = "MODE")]
    pub against_mode: Option<Mode>,
    /// Kubernetes APIs to measure on [default: in-process, and real where KUBEBUILDER_ASSETS names one]
    #[arg(long, value_enum)]
    pub api: Vec<ApiKind>,
    /// Starts of each kube-proxy; one that takes over 20 s is not repeated
    #[arg(long, default_value_t = 5)]
    pub starts: usize,
    /// Moves of one endpoint
    #[arg(long, default_value_t = 300)]
    pub moves: usize,
    /// No further move of the endpoint begins after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub moves_for: u64,
    /// A start, or one move, that takes so many seconds is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub give_up: u64,
    /// In a mode of iptables: iptables-restore alone, with all rules at once, is given up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub restore_for: u64,
    /// So many seconds in an empty cluster are watched
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub idle: u32,
    /// Services that are asked
    #[arg(long, default_value_t = 64)]
    pub sample: usize,
    /// Before each start, wait for at most so many seconds for the machine to come to rest
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub rest: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Programming {
    /// Measures, and prints figures to standard output.
    ///
    /// # Errors
    /// As [`Programming::measure`], and when the kube-proxy failed in a phase, after printing what there is.
    pub fn run(&self, kube_proxy: &Path) -> Result<()> {
        interrupt::watch()?;
        let report = self.measure(kube_proxy)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        let failed = report.failures();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }

    /// Measures, and prints progress to standard error. A kube-proxy that fails or does not finish in time is no
    /// error: the report says so.
    ///
    /// # Errors
    /// When a program is not there, the lab or an API cannot be set up, or a signal stopped it.
    pub fn measure(&self, kube_proxy: &Path) -> Result<Report> {
        let size = Size {
            services: self.services,
            endpoints: self.endpoints,
        }
        .check()?;
        let contenders = self.contenders(kube_proxy)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let machine = Machine::look()?;
        let program = kube_proxy.with_file_name("examples/dataplane_cost");
        let dataplane = floors::dataplane(&program, self.mode, size)?;
        let mut apis = Vec::new();
        for kind in self.apis() {
            let site = Site::make(&runtime, kind, size)?;
            let floor = site.floor()?;
            let candidates = rounds::all(&site, &contenders, self);
            interrupt::check()?;
            apis.push(ApiReport {
                api: kind,
                floor,
                candidates,
            });
        }
        Ok(Report {
            machine: Machine {
                load_after: report::load_average()?,
                ..machine
            },
            mode: self.mode.name(),
            services: self.services,
            endpoints: self.endpoints,
            sample: self.sample.min(self.services),
            dataplane,
            apis,
        })
    }

    fn contenders(&self, kube_proxy: &Path) -> Result<Vec<Contender>> {
        let mut contenders = vec![Contender::new("kube-proxy", kube_proxy, self.mode)?];
        if let Some(path) = &self.against {
            contenders.push(Contender::new(
                "the other",
                path,
                self.against_mode.unwrap_or(self.mode),
            )?);
        }
        Ok(contenders)
    }

    fn apis(&self) -> Vec<ApiKind> {
        if !self.api.is_empty() {
            return self.api.clone();
        }
        let real = crate::control_plane::assets().map(|_| ApiKind::Real);
        [ApiKind::InProcess].into_iter().chain(real).collect()
    }

    fn give_up(&self) -> Duration {
        Duration::from_secs(self.give_up)
    }
}
