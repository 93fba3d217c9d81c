//! The commands `pod`, `explain` and `log-level`: what a person or a script asks of the running node proxy.

use anyhow::Result;
use fairlead_component::logging::LevelChange;

use fairlead_node::{
    api::{PodSpec, PodStatus, client::Client},
    cli::{ExplainArgs, LogLevelArgs, Output, PodAddArgs, PodCommand, PodListArgs},
};

/// Stands for what is not known.
const UNKNOWN: &str = "-";

/// Carries out a command and prints its result.
pub(crate) async fn run(command: PodCommand) -> Result<()> {
    match command {
        PodCommand::Add(args) => add(args).await,
        PodCommand::Remove(args) => {
            Client::new(&args.run_dir).remove(&args.pod).await?;
            println!("{} released", args.pod);
            Ok(())
        }
        PodCommand::List(args) => list(args).await,
    }
}

/// Asks what becomes of a connection and prints the answer.
pub(crate) async fn explain(args: ExplainArgs) -> Result<()> {
    let ExplainArgs { from, to, output, run_dir } = args;
    let explanation = Client::new(&run_dir).explain(&from, to).await?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Output::Table => {
            // Some of it comes from a process without privileges.
            let text = explanation.to_string();
            let is_harmless = |c: &char| *c == '\n' || !c.is_control();
            print!("{}", text.chars().filter(is_harmless).collect::<String>());
        }
    }
    Ok(())
}

/// Changes what is logged, if it is to be changed, and prints it.
pub(crate) async fn log_level(args: LogLevelArgs) -> Result<()> {
    let LogLevelArgs { level, reset, run_dir } = args;
    let client = Client::new(&run_dir);
    let logging = match level {
        Some(level) => client.log(LevelChange::Put(level)).await?,
        None if reset => client.log(LevelChange::Reset).await?,
        None => client.logging().await?,
    };
    println!("current log level is {}", logging.level);
    Ok(())
}

async fn add(args: PodAddArgs) -> Result<()> {
    let PodAddArgs { namespace, name, service_account, netns, uid, run_dir } = args;
    let addresses = Vec::new();
    let spec = PodSpec { uid, namespace, name, service_account, netns, addresses };
    let status = Client::new(&run_dir).add(&spec).await?;
    let pod = status.key();
    if !status.state.is_captured() {
        let problem = status.problem.as_deref().unwrap_or(UNKNOWN);
        println!("{pod} registered, {}: {problem}", status.state);
        return Ok(());
    }
    let identity = status.identity.as_deref().unwrap_or(UNKNOWN);
    println!("{pod} enrolled as {identity} in {:.1} ms", status.enrolled_in_ms);
    Ok(())
}

async fn list(args: PodListArgs) -> Result<()> {
    let pods = Client::new(&args.run_dir).list().await?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&pods)?),
        Output::Table => print_table(&pods),
    }
    Ok(())
}

fn print_table(pods: &[PodStatus]) {
    println!("{:<32} {:<9} {:>5}  {:<40} IDENTITY", "POD", "STATE", "CONNS", "ADDRESSES");
    for pod in pods {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        println!(
            "{name:<32} {:<9} {:>5}  {:<40} {}",
            pod.state,
            pod.connections,
            addresses.join(","),
            pod.identity.as_deref().unwrap_or(UNKNOWN)
        );
        if let Some(problem) = &pod.problem {
            println!("{:<32} {problem}", "");
        }
    }
}
