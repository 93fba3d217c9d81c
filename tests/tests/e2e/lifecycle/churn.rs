//! Pods that come and go many times a second, each on the addresses of the one before it, which was
//! somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use fairlead_lab::{FairleadNode, Host as _, Pod, PodSpec, WorkloadEntry, wait_for};
use tokio::{
    net::TcpStream,
    runtime,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    clients::{SOON, curl},
    mesh::{ECHO, HTTP, Mesh},
    state::State,
    traffic::{Cue, Failure, Heard, Target, Traffic, WRONG_BYTES, ask, exchange_once, serve_echo},
};

/// Sets the seconds of churn.
const DURATION_VARIABLE: &str = "FAIRLEAD_CHURN_SECONDS";

/// Seconds of churn unless told otherwise.
const DURATION: u64 = 8;

/// Pods at a time; each has addresses that no other one has at the same time.
const PLACES: u8 = 8;

/// Last number of the addresses of the first place.
const FIRST_ADDRESS: u8 = 100;

/// Pods created a second at most.
const MOST_A_SECOND: u32 = 100;

/// Pods created a second at least, on a machine with other things to do.
const FEWEST_A_SECOND: f64 = 5.0;

/// Service accounts that take turns at each place. The configuration knows the first one's pods.
const ACCOUNTS: [&str; 2] = ["known", "unknown"];

/// One pod in so many is released before it is deleted; the others vanish.
const RELEASED: usize = 3;

/// Time for a connection to a place, whose pod may be gone.
const SHORT: Duration = Duration::from_secs(1);

/// Pause between two connections to a place.
const PAUSE: Duration = Duration::from_millis(10);

/// Descriptors of a node proxy after much traffic, beside those of one that has seen none.
const KEPT_DESCRIPTORS: usize = 24;

/// What the pods did.
#[derive(Debug, Default)]
struct Churned {
    /// Pods that were created, enrolled and deleted.
    pods: usize,
    /// Longest time that an enrolment took.
    slowest: Duration,
    /// Messages that pods of the known account heard.
    heard: usize,
    /// Which identities had an address and port of a client, one after the other.
    clients: BTreeMap<SocketAddr, BTreeSet<String>>,
}

// === impl Churned ===

impl Churned {
    fn add(&mut self, other: Self) {
        self.pods += other.pods;
        self.slowest = self.slowest.max(other.slowest);
        self.heard += other.heard;
        for (client, identities) in other.clients {
            self.clients.entry(client).or_default().extend(identities);
        }
    }
}

fn spec(place: u8, account: &str) -> PodSpec {
    let spec = PodSpec::new(&format!("churn{place}")).namespace("shop").service_account(account);
    spec.host_number(FIRST_ADDRESS + place)
}

/// Has a pod talk to `server` once, as soon as it is enrolled; returns the client's address.
fn speak(pod: &Pod, server: &Target) -> Result<SocketAddr> {
    pod.netns().enter(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut stream = timeout(SOON, TcpStream::connect(server.address)).await??;
            timeout(SOON, exchange_once(&mut stream, pod.service_account(), &server.name))
                .await??;
            Ok(stream.local_addr()?)
        })
    })
}

/// Lets one pod live; it talks to `server` and answers to whoever comes.
fn live(mesh: &Mesh, spec: PodSpec, release: bool, server: &Target) -> Result<Churned> {
    let pod = mesh.lab.node(1).add_pod(spec)?;
    let started = Instant::now();
    mesh.n1.enrol(&pod)?;
    let slowest = started.elapsed();
    let echo = serve_echo(&pod, ECHO)?;
    let client = speak(&pod, server).with_context(|| pod.identity())?;
    thread::sleep(PAUSE);
    let heard = echo.finish()?;
    for (heard, _) in &heard {
        ensure!(is_meant_for(heard, &pod, &mesh.b), "{} heard {heard:?}", pod.identity());
    }
    if release {
        mesh.n1.release(&pod)?;
    }
    pod.delete()?;
    let clients = BTreeMap::from([(client, BTreeSet::from([pod.identity()]))]);
    Ok(Churned { pods: 1, slowest, heard: heard.values().sum(), clients })
}

/// Returns whether `pod` may have heard a message.
fn is_meant_for(heard: &Heard, pod: &Pod, client: &Pod) -> bool {
    let addresses = [client.ipv4().into(), client.ipv6().into()];
    heard.from == "b" && heard.to == pod.service_account() && addresses.contains(&heard.peer)
}

/// Fills and empties one place until `end`.
fn churn(mesh: &Mesh, place: u8, server: &Target, end: Instant) -> Result<Churned> {
    let pace = Duration::from_secs(1) * PLACES.into() / MOST_A_SECOND;
    let mut all = Churned::default();
    for (round, account) in ACCOUNTS.iter().cycle().enumerate() {
        let started = Instant::now();
        if started > end {
            break;
        }
        let pod = spec(place, account);
        let release = (round + usize::from(place)) % RELEASED == 0;
        all.add(live(mesh, pod, release, server).with_context(|| format!("round {round}"))?);
        thread::sleep(pace.saturating_sub(started.elapsed()));
    }
    Ok(all)
}

/// Connects to every place again and again; returns how often each answered, and failures that
/// nothing excuses.
async fn call(places: Vec<Target>, cue: Cue) -> Result<(usize, Vec<Failure>)> {
    let mut callers = JoinSet::new();
    for target in places {
        let cue = cue.clone();
        callers.spawn(async move {
            let (mut answered, mut wrong) = (0, Vec::new());
            for number in 0.. {
                match ask("b".to_owned(), target.clone(), number, SHORT).await {
                    Ok(_) => answered += 1,
                    Err(failure) if failure.what.contains(WRONG_BYTES) => wrong.push(failure),
                    Err(_) => {}
                }
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = cue.over() => break,
                }
            }
            (answered, wrong)
        });
    }
    let seen = callers.join_all().await;
    let answered = seen.iter().map(|(answered, _)| answered).sum();
    Ok((answered, seen.into_iter().flat_map(|(_, wrong)| wrong).collect()))
}

/// Has the pods at all places come and go.
fn churn_everywhere(mesh: &Mesh) -> Result<Churned> {
    let seconds = env::var(DURATION_VARIABLE).map_or(Ok(DURATION), |text| text.parse())?;
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let servers = [Target::new("b", mesh.b.v4(ECHO)), Target::new("b", mesh.b.v6(ECHO))];
    let all = thread::scope(|scope| {
        let places: Vec<_> = (0..PLACES)
            .zip(servers.iter().cycle())
            .map(|(place, server)| scope.spawn(move || churn(mesh, place, server, end)))
            .collect();
        let mut all = Churned::default();
        for place in places {
            all.add(place.join().map_err(|_| anyhow!("a place panicked"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let rate = f64::from(u32::try_from(all.pods)?) / started.elapsed().as_secs_f64();
    println!("{} pods, {rate:.0} a second, enrolled within {:?}", all.pods, all.slowest);
    ensure!(rate > FEWEST_A_SECOND, "{rate} pods a second");
    Ok(all)
}

/// Tells the nodes of the first pods of all places; returns how to reach them.
fn announce(mesh: &mut Mesh) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for place in 0..PLACES {
        let pod = mesh.lab.node(1).add_pod(spec(place, ACCOUNTS[0]))?;
        mesh.config.workloads.push(WorkloadEntry::of(&pod));
        let address = if place % 2 == 0 { pod.v4(ECHO) } else { pod.v6(ECHO) };
        targets.push(Target::new(ACCOUNTS[0], address));
        pod.delete()?;
    }
    mesh.apply()?;
    Ok(targets)
}

/// Fails if node 2 took a pod for one that had its address before or after it.
fn check_identities(node: &FairleadNode, churned: &Churned) -> Result<usize> {
    let mut checked = 0;
    for line in node.access_log()? {
        let (Some(address), Some(identity)) = (line.get("src.addr"), line.get("src.identity"))
        else {
            continue;
        };
        if let Some(identities) = churned.clients.get(&address.parse()?) {
            ensure!(identities.contains(&identity), "{identities:?}: {line:?}");
            checked += 1;
        }
    }
    Ok(checked)
}

#[test]
fn pods_that_come_and_go_many_times_a_second_leave_nothing_and_are_never_taken_for_others()
-> Result<()> {
    let mut mesh = Mesh::new("churn")?;
    let b_hears = serve_echo(&mesh.b, ECHO)?;
    let places = announce(&mut mesh)?;
    let state = |mesh: &Mesh| State::of(&mesh.n1, &[&mesh.a, &mesh.c, &mesh.d]);
    let descriptors = |mesh: &Mesh| Ok::<_, anyhow::Error>(mesh.n1.resources()?.descriptors);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    let (before, fresh) = (state(&mesh)?, descriptors(&mesh)?);

    let callers = Traffic::start(&mesh.b, move |cue| call(places, cue));
    let churned = churn_everywhere(&mesh)?;
    let (answered, wrong) = callers.finish()?;
    println!("{answered} connections to them were answered, of {} heard", churned.heard);
    ensure!(answered > 0 && churned.heard >= answered, "{answered} of {}", churned.heard);
    ensure!(wrong.is_empty(), "{wrong:?}");

    wait_for("the state from before", SOON, || Ok((state(&mesh)? == before).then_some(())))
        .with_context(|| format!("before: {before:#?}\nnow: {:#?}", state(&mesh)))?;
    wait_for("descriptors are closed", SOON, || {
        Ok((descriptors(&mesh)? <= fresh + KEPT_DESCRIPTORS).then_some(()))
    })
    .with_context(|| format!("{fresh} before, now {:?}", descriptors(&mesh)))?;
    let heard: usize = b_hears.finish()?.values().sum();
    assert_eq!(heard, churned.pods, "a message of each pod");
    wait_for("a line for each connection", SOON, || {
        Ok((check_identities(&mesh.n2, &churned)? >= churned.pods).then_some(()))
    })?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}
