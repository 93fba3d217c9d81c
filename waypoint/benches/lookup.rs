//! Time to find the route of a request, and to make the table anew after a change, by the number of
//! routes.
#![expect(clippy::expect_used, reason = "the routes are written here")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fairlead_waypoint::route::{Client, RequestHead, Route, ServiceRoutes};
use http::Request;
use mesh_api::proto::l7::{self, path_match::Kind};

/// Number of routes.
const SIZES: [usize; 3] = [1, 1000, 5000];

/// Routes as they are found in the field: mostly by path elements, some exact, few by patterns.
fn route(id: usize) -> Route {
    let text = format!("/api/v1/service-{id}");
    let kind = match id % 20 {
        0 => Kind::Regex(format!("{text}/[0-9]+")),
        1..=5 => Kind::Exact(text),
        _ => Kind::Elements(text),
    };
    let path = Some(l7::PathMatch { kind: Some(kind), ignore_case: false });
    let response = l7::DirectResponse { status: 200, ..Default::default() };
    let http = l7::HttpRoute {
        r#match: Some(l7::HttpMatch { path, ..Default::default() }),
        action: Some(l7::http_route::Action::DirectResponse(response)),
        ..Default::default()
    };
    let wire = l7::Route {
        id: id.to_string(),
        service: Some(l7::ServiceRef { namespace: "shop".into(), hostname: "cart".into() }),
        order: id.to_be_bytes().to_vec().into(),
        traffic: Some(l7::route::Traffic::Http(http)),
        ..Default::default()
    };
    Route::try_from(wire).expect("a valid route")
}

fn service(size: usize) -> ServiceRoutes {
    let mut service = ServiceRoutes::default();
    (0..size).for_each(|id| service.insert(route(id)));
    service
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for size in SIZES {
        let table = service(size).tables(80);
        let last = size - 1;
        let uri = format!("/api/v1/service-{last}/cart/items?page=7");
        let request = Request::builder().uri(uri).header("host", "cart").body(());
        let (parts, ()) = request.expect("a valid request").into_parts();
        group.bench_with_input(BenchmarkId::from_parameter(size), &table, |bencher, table| {
            bencher.iter(|| {
                black_box(
                    table
                        .of("shop")
                        .find(&RequestHead::of(black_box(&parts), "http"), Client::default()),
                );
            });
        });
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    for size in SIZES {
        let mut service = service(size);
        let changed = route(size / 2);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                service.insert(changed.clone());
                service.tables(80)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, change);
criterion_main!(benches);
