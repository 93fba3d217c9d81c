//! Talks to the control plane, one stream after the other.

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::{Request, Streaming};

use super::{Event, MAX_MESSAGE_BYTES, Session, StreamEnd, backoff::Backoff};
use crate::{
    control_plane::ControlPlane,
    proto::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};

/// Requests that may wait to be sent: the first of each type, then one answer at a time.
const REQUEST_QUEUE: usize = 16;

/// The consumer wants no more.
struct Unwanted;

/// Keeps `session` up to date and tells `events` of everything, until nobody receives them.
pub async fn run<T: Send>(
    control_plane: ControlPlane,
    mut session: Session<T>,
    events: mpsc::Sender<Event<T>>,
) {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let Ok(end) = follow(&control_plane, &mut session, &events).await else { return };
        if events.send(Event::Disconnected(end)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(backoff.after(started.elapsed(), rand::random())) => {}
            () = events.closed() => return,
        }
    }
}

/// Follows one stream to its end.
async fn follow<T>(
    control_plane: &ControlPlane,
    session: &mut Session<T>,
    events: &mpsc::Sender<Event<T>>,
) -> Result<StreamEnd, Unwanted> {
    let opened = tokio::select! {
        opened = open(control_plane, session) => opened,
        () = events.closed() => return Err(Unwanted),
    };
    let (requests, mut responses) = match opened {
        Ok(opened) => opened,
        Err(end) => return Ok(end),
    };
    events.send(Event::Connected).await.map_err(|_| Unwanted)?;
    loop {
        let message = tokio::select! {
            message = responses.message() => message,
            () = events.closed() => return Err(Unwanted),
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(StreamEnd::Complete),
            Err(status) => return Ok(status.into()),
        };
        let answer = match session.receive(response) {
            Ok(answer) => answer,
            Err(error) => return Ok(error.into()),
        };
        events.send(Event::Update(answer.update)).await.map_err(|_| Unwanted)?;
        // If the stream takes no more, the next message says how it ended.
        let _ = requests.send(answer.request).await;
    }
}

async fn open<T>(
    control_plane: &ControlPlane,
    session: &Session<T>,
) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), StreamEnd> {
    let channel = control_plane.connect().await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
    let outgoing = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
        queue.recv().await.map(|request| (request, queue))
    });
    let mut request = Request::new(stream::iter(session.first_requests()).chain(outgoing));
    control_plane.authorize(&mut request).await?;
    let responses = client.delta_aggregated_resources(request).await?.into_inner();
    Ok((requests, responses))
}
