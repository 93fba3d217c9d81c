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

/// Time between two changes of the configuration, which swap the service accounts of all places.
const TURN: Duration = Duration::from_secs(2);

/// Pods at a time; each has addresses that no other one has at the same time.
const PLACES: u8 = 8;

/// Last number of the addresses of the first place.
const FIRST_ADDRESS: u8 = 100;

/// Pods created a second at most.
const MOST_A_SECOND: u32 = 100;

/// Pods created a second at least, on a machine with other things to do.
const FEWEST_A_SECOND: f64 = 5.0;

/// Service accounts that take turns at each place. The configuration knows one of them at a time;
/// the other one's pods come and go all the same.
const ACCOUNTS: [&str; 2] = ["red", "blue"];

/// One pod in so many is released before it is deleted; the others vanish.
const RELEASED: usize = 3;

/// Time for a connection to a place, whose pod may be gone.
const SHORT: Duration = Duration::from_secs(1);

/// Time for calls that a pod at the first place gets.
const LONG_STAY: Duration = Duration::from_millis(300);

/// Time for calls that other pods get, and pause between two connections to a place.
const PAUSE: Duration = Duration::from_millis(10);

/// Time in which an idle proxy gives back the sockets that it kept ready for a load.
const IDLE_TIME: Duration = Duration::from_secs(40);

/// Descriptors of a node proxy after much traffic, beside those of one that has seen none.
const KEPT_DESCRIPTORS: usize = 24;

/// What happens for a while.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Service account that the configuration knows at each place.
    known: &'static str,
    end: Instant,
}

/// What the pods did.
#[derive(Debug, Default)]
struct Churned {
    /// Pods that were created, enrolled and deleted.
    pods: usize,
    /// Longest time that an enrolment took.
    slowest: Duration,
    /// Messages that the pods heard.
    heard: usize,
    /// Messages that they sent.
    spoken: usize,
    /// Which identities had an address and port of a client, one after the other.
    clients: BTreeMap<SocketAddr, BTreeSet<String>>,
}

// === impl Churned ===

impl Churned {
    fn add(&mut self, other: Self) {
        self.pods += other.pods;
        self.slowest = self.slowest.max(other.slowest);
        self.heard += other.heard;
        self.spoken += other.spoken;
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

/// Lets one pod live, after all else to `stay` for the calls of others. One that is `known` talks to
/// `server`; whatever hears something it is meant for.
fn live(mesh: &Mesh, pod: &Pod, known: bool, server: &Target, stay: Duration) -> Result<Churned> {
    let started = Instant::now();
    mesh.n1.enrol(pod)?;
    let mut life = Churned { pods: 1, slowest: started.elapsed(), ..Churned::default() };
    let echo = serve_echo(pod, ECHO)?;
    if known {
        let identities = BTreeSet::from([pod.identity()]);
        life.clients.insert(speak(pod, server)?, identities);
        life.spoken = 1;
    }
    thread::sleep(stay);
    let heard = echo.finish()?;
    ensure!(heard.keys().all(|heard| known && is_meant_for(heard, pod, &mesh.b)), "{heard:?}");
    life.heard = heard.values().sum();
    Ok(life)
}

/// Returns whether `pod` may have heard a message.
fn is_meant_for(heard: &Heard, pod: &Pod, client: &Pod) -> bool {
    let addresses = [client.ipv4().into(), client.ipv6().into()];
    heard.from == "b" && heard.to == pod.service_account() && addresses.contains(&heard.peer)
}

/// Fills and empties one place until the end of the turn.
fn churn(mesh: &Mesh, place: u8, server: &Target, turn: Turn) -> Result<Churned> {
    let interval = Duration::from_secs(1) * PLACES.into() / MOST_A_SECOND;
    let mut all = Churned::default();
    for (round, account) in ACCOUNTS.iter().cycle().enumerate() {
        let started = Instant::now();
        if started > turn.end {
            break;
        }
        let pod = mesh.lab.node(1).add_pod(spec(place, account))?;
        let stay = if place == 0 { LONG_STAY } else { PAUSE };
        let life = live(mesh, &pod, *account == turn.known, server, stay);
        all.add(life.with_context(|| format!("round {round}: {}", pod.identity()))?);
        if (round + usize::from(place)) % RELEASED == 0 {
            mesh.n1.release(&pod)?;
        }
        pod.delete()?;
        thread::sleep(interval.saturating_sub(started.elapsed()));
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

/// Has the pods at all places come and go until the end of the turn.
fn churn_everywhere(mesh: &Mesh, turn: Turn) -> Result<Churned> {
    let servers = [Target::new("b", mesh.b.v4(ECHO)), Target::new("b", mesh.b.v6(ECHO))];
    thread::scope(|scope| {
        let places: Vec<_> = (0..PLACES)
            .zip(servers.iter().cycle())
            .map(|(place, server)| scope.spawn(move || churn(mesh, place, server, turn)))
            .collect();
        let mut all = Churned::default();
        for place in places {
            all.add(place.join().map_err(|_| anyhow!("a place panicked"))??);
        }
        Ok(all)
    })
}

/// Churns with changing accounts while `b` calls the pods.
fn take_turns(mesh: &mut Mesh) -> Result<Churned> {
    let seconds = env::var(DURATION_VARIABLE).map_or(Ok(DURATION), |text| text.parse())?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let places = add_places(mesh)?;
    let (mut all, mut churning) = (Churned::default(), Duration::ZERO);
    for known in ACCOUNTS.into_iter().cycle() {
        let calls = announce(mesh, &places, known)?;
        let started = Instant::now();
        if started > end {
            break;
        }
        let callers = Traffic::start(&mesh.b, move |cue| call(calls, cue));
        let turn = churn_everywhere(mesh, Turn { known, end: started + TURN })?;
        churning += started.elapsed();
        let (answered, wrong) = callers.finish()?;
        ensure!(turn.heard >= answered, "{answered} of {}", turn.heard);
        ensure!(wrong.is_empty(), "{wrong:?}");
        all.add(turn);
    }
    let rate = f64::from(u32::try_from(all.pods)?) / churning.as_secs_f64();
    let Churned { pods, slowest, heard, spoken, .. } = &all;
    println!(
        "{pods} pods, {rate:.0} a second, enrolled within {slowest:?}; they sent {spoken} messages \
         and heard {heard}"
    );
    ensure!(*heard > 0, "nobody was called");
    ensure!(rate > FEWEST_A_SECOND, "{rate} pods a second");
    Ok(all)
}

/// Finds out the addresses of all places.
fn add_places(mesh: &Mesh) -> Result<Vec<Pod>> {
    let place = |place| {
        let pod = mesh.lab.node(1).add_pod(spec(place, ACCOUNTS[0]))?;
        pod.delete()?;
        Ok(pod)
    };
    (0..PLACES).map(place).collect()
}

/// Tells the nodes whose pods are at the places; returns how to reach them.
fn announce(mesh: &mut Mesh, places: &[Pod], known: &str) -> Result<Vec<Target>> {
    mesh.config.workloads.retain(|known| !places.iter().any(|place| place.uid() == known.uid));
    for place in places {
        let entry = WorkloadEntry { service_account: known.to_owned(), ..WorkloadEntry::of(place) };
        mesh.config.workloads.push(entry);
    }
    mesh.apply()?;
    let addresses = places.iter().flat_map(|place| [place.v4(ECHO), place.v6(ECHO)]);
    Ok(addresses.map(|address| Target::new(known, address)).collect())
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
    let state = |mesh: &Mesh| State::of(&mesh.n1, &[&mesh.a, &mesh.c, &mesh.d]);
    let descriptors = |mesh: &Mesh| Ok::<_, anyhow::Error>(mesh.n1.resources()?.descriptors);
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    let (before, fresh) = (state(&mesh)?, descriptors(&mesh)?);

    let churned = take_turns(&mut mesh).with_context(|| mesh.n1.complaints())?;
    wait_for("the state from before", SOON, || Ok((state(&mesh)? == before).then_some(())))
        .with_context(|| format!("before: {before:#?}\nnow: {:#?}", state(&mesh)))?;
    wait_for("descriptors are closed", IDLE_TIME, || {
        Ok((descriptors(&mesh)? <= fresh + KEPT_DESCRIPTORS).then_some(()))
    })
    .with_context(|| format!("{fresh} before, now {:?}", descriptors(&mesh)))?;
    let heard: usize = b_hears.finish()?.values().sum();
    assert_eq!(heard, churned.spoken, "a message of each pod");
    wait_for("a line for each connection", SOON, || {
        Ok((check_identities(&mesh.n2, &churned)? >= churned.spoken).then_some(()))
    })?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}
