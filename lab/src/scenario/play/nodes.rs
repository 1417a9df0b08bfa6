//! The nodes of a scenario under way: what is done to them, and the kube-proxies that run there.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::super::ask::SETTLING;
use super::super::file::Step;
use super::super::mode::Mode;
use super::super::names::Names;
use super::Stage;
use crate::proxy::{self, KubeProxy, Setup};

impl Stage {
    /// Loads rules, and changes addresses.
    pub(super) fn prepare_nodes(&self, step: &Step) -> Result<()> {
        self.run_on_nodes("nft", &["-f", "-"], &step.rules)?;
        for (nodes, rules) in &step.iptables_rules {
            for node in nodes.iter() {
                let node = &self.lab.member(node)?.namespace;
                self.play.mode.restore(node, self.play.family, rules)?;
            }
        }
        self.run_on_nodes("ip", &["-batch", "-"], &step.ip)?;
        self.run_on_nodes("ipvsadm", &["--restore"], &step.ipvs)?;
        self.run_on_nodes("ipset", &["restore"], &step.ipsets)
    }

    /// Kills kube-proxies, starts others, cleans up, and waits for what they add and remove.
    pub(super) fn run_proxies(&mut self, step: &Step) -> Result<()> {
        for node in &step.kill {
            let killed = self.proxies.remove(node);
            ensure!(killed.is_some(), "kill: no kube-proxy runs on {node}");
        }
        self.start(&step.start, self.play.mode)?;
        for (nodes, mode) in &step.start_as {
            let nodes: Vec<_> = nodes.iter().map(str::to_owned).collect();
            self.start(&nodes, *mode)?;
        }
        for node in step.clean_up.iter().flat_map(Names::iter) {
            let program = self.program.display().to_string();
            self.lab.member(node)?.namespace.run(&program, &["--cleanup"])?;
        }
        for (nodes, mode) in &step.without {
            let mode = mode.on_node_of(self.play.mode);
            nodes.iter().try_for_each(|node| self.without(node, mode))?;
        }
        for (nodes, text) in &step.virtual_servers {
            nodes
                .iter()
                .try_for_each(|node| self.virtual_servers(node, text))?;
        }
        Ok(())
    }

    /// Waits until a node's list of virtual servers holds a text.
    fn virtual_servers(&self, node: &str, text: &str) -> Result<()> {
        let namespace = &self.lab.member(node)?.namespace;
        loop {
            let list = namespace.run("ipvsadm", &["--save", "--numeric"])?;
            if list.contains(text) {
                return Ok(());
            }
            running(&self.proxies)?;
            ensure!(
                self.changed.elapsed() < SETTLING,
                "ten seconds after the last change {text:?} is not among the virtual servers of {node}:\n{list}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn run_on_nodes(&self, program: &str, args: &[&str], inputs: &BTreeMap<Names, String>) -> Result<()> {
        for (nodes, input) in inputs {
            for node in nodes.iter() {
                let node = &self.lab.member(node)?.namespace;
                node.run_with_input(program, args, input)?;
            }
        }
        Ok(())
    }

    /// Waits until a kube-proxy has logged a text.
    pub(super) fn logged(&self, node: &str, text: &str) -> Result<()> {
        let proxy = self.proxies.get(node);
        let proxy = proxy.with_context(|| format!("logged: no kube-proxy runs on {node}"))?;
        while !proxy.log().contains(text) {
            running(&self.proxies)?;
            ensure!(
                self.changed.elapsed() < SETTLING,
                "the kube-proxy of {node} has not logged {text:?} ten seconds after the last change"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until nothing is left of a kube-proxy in a mode.
    fn without(&self, node: &str, mode: Mode) -> Result<()> {
        let namespace = &self.lab.member(node)?.namespace;
        loop {
            let left = mode.left(namespace)?;
            if left.is_empty() {
                return Ok(());
            }
            running(&self.proxies)?;
            ensure!(
                self.changed.elapsed() < SETTLING,
                "ten seconds after the last change {node} has this left of {mode} mode: {}",
                left.join(", ")
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn start(&mut self, nodes: &[String], mode: Mode) -> Result<()> {
        let mut config = proxy::config(mode.configured());
        proxy::overlay(&mut config, &self.scenario.config);
        let setup = Setup {
            program: self.program.clone(),
            folder: self.folder.path().to_owned(),
            source: self.cluster.source()?,
            config,
        };
        for node in nodes {
            let proxy = KubeProxy::start(self.lab.member(node)?, &setup)?;
            ensure!(
                self.proxies.insert(node.clone(), proxy).is_none(),
                "{node} already has a kube-proxy"
            );
        }
        Ok(())
    }

    /// What a person needs to see to understand a failure.
    pub(super) fn circumstances(&self) -> String {
        let mut text = String::new();
        for node in self.lab.nodes() {
            let rules = self.play.mode.rules(&node.namespace);
            let log = self
                .proxies
                .get(&node.name)
                .map_or_else(String::new, KubeProxy::log);
            text += &format!(
                "\n── rules of {0} ──\n{rules}\n── log of {0} ──\n{log}",
                node.name
            );
        }
        text
    }
}

/// Whether every kube-proxy that should be there is.
pub(in crate::scenario) fn running(proxies: &BTreeMap<String, KubeProxy>) -> Result<()> {
    let ended = proxies.iter().find(|(_, proxy)| !proxy.is_running());
    ended.map_or(Ok(()), |(node, _)| {
        Err(anyhow!("the kube-proxy of {node} has ended"))
    })
}
