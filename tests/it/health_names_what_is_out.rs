//! `/health` tells a daemon that is slower (without Redis) from one that cannot work (without its store or its broker), and names
//! which of them is out.

use crate::support::{eventually, sandbox::Sandbox, services::Service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_by_itself() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let services = sandbox.external().services;
    let daemon = sandbox.daemon().await;
    let http = daemon.http();
    let told = async |status: u16, overall: &str, out: Option<&str>| {
        eventually(&format!("{overall}, out: {out:?}"), async || {
            let reply = http.get("/health").await.ok().filter(|reply| reply.status == status)?;
            let json = reply.json();
            let names = ["postgres", "redis", "messageQueue"];
            let as_told = names.iter().all(|name| (json["services"][name]["status"] != "healthy") == (out == Some(*name)));
            let text = json.to_string();
            assert!(!text.contains("127.0.0.1") && !text.contains("guest"), "no addresses in it: {text}");
            (json["status"] == overall && as_told).then_some(())
        })
        .await;
    };
    told(200, "healthy", None).await;
    for (service, name, status, overall) in [
        (Service::Redis, "redis", 200, "degraded"),
        (Service::Postgres, "postgres", 503, "unhealthy"),
        (Service::Rabbitmq, "messageQueue", 503, "unhealthy"),
    ] {
        services.kill(service).await;
        told(status, overall, Some(name)).await;
        services.start(service).await;
        told(200, "healthy", None).await;
    }
}
