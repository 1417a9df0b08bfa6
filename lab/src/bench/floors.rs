//! What lies below every kube-proxy: the API's own time, and the kernel's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::figures::{ApiFloor, Times};
use super::objects::{Size, moved_slice};
use crate::client::{Access, JSON, PROTOBUF};
use crate::net::Namespace;
use crate::scenario::Mode;

const LISTS: [&str; 2] = ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"];
/// How often both lists are read.
const READS: usize = 5;
/// How many events are awaited.
const EVENTS: usize = 50;
/// No event takes this long.
const EVENT: Duration = Duration::from_secs(10);

/// Reads both lists and awaits events, with nobody else at the API.
pub(super) fn api(runtime: &Runtime, access: &Access, moved: &mut usize) -> Result<ApiFloor> {
    runtime.block_on(async {
        let (protobuf, protobuf_bytes) = lists(access, PROTOBUF).await?;
        let (json, json_bytes) = lists(access, JSON).await?;
        let streamed = streams(access).await?;
        let event = events(access, moved).await?;
        Ok(ApiFloor {
            protobuf,
            protobuf_bytes,
            json,
            json_bytes,
            streamed,
            event,
        })
    })
}

async fn lists(access: &Access, accept: &str) -> Result<(Times, usize)> {
    let mut connection = access.connect().await?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..READS {
        let begun = Instant::now();
        bytes = 0;
        for list in LISTS {
            bytes += connection.get(list, accept).await?.len();
        }
        times.push(begun.elapsed());
    }
    Ok((Times::of(&times).context("no list was read")?, bytes))
}

/// Both at the same time, as kube-proxy reads them.
async fn streams(access: &Access) -> Result<Times> {
    let mut times = Vec::new();
    for _ in 0..READS {
        let begun = Instant::now();
        let [services, slices] = LISTS.map(|list| {
            let access = access.clone();
            tokio::spawn(async move { access.connect().await?.stream(list).await })
        });
        services.await??;
        slices.await??;
        times.push(begun.elapsed());
    }
    Times::of(&times).context("no list was streamed")
}

async fn events(access: &Access, moved: &mut usize) -> Result<Times> {
    let mut watch = access.connect().await?.watch(LISTS[1]).await?;
    let mut connection = access.connect().await?;
    let mut times = Vec::new();
    // A watch without a resource version begins with the objects that exist; they are over when nothing comes.
    while timeout(Duration::from_millis(300), watch.next())
        .await
        .is_ok_and(|event| event.is_ok())
    {}
    for _ in 0..EVENTS {
        *moved += 1;
        let (path, slice) = moved_slice(*moved);
        let begun = Instant::now();
        let (written, event) = tokio::join!(connection.replace(&path, &slice), async {
            let event = timeout(EVENT, watch.next()).await;
            event.map(|event| (event, begun.elapsed()))
        });
        written?;
        let (event, elapsed) = event.context("no event at a plain watch")?;
        event?;
        times.push(elapsed);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Times::of(&times).context("no event was awaited")
}

/// Runs kube-proxy's example of what its dataplane costs alone, and returns what it prints. `None` when it is not
/// built.
pub(super) fn dataplane(program: &Path, mode: Mode, size: Size) -> Result<Option<String>> {
    if !program.is_file() {
        return Ok(None);
    }
    let arguments = [
        mode.name().to_owned(),
        size.services.to_string(),
        size.endpoints.to_string(),
    ];
    // It makes a namespace of its own; this one is for the case that it does not.
    let namespace = Namespace::create("bench-dataplane")?;
    let printed = namespace.run(
        &program.to_string_lossy(),
        &arguments.each_ref().map(String::as_str),
    )?;
    Ok(Some(printed))
}
