//! Two loads on the pipeline in this process, in turn: whatever else the machine does meets both.

use super::Without;
use crate::bench::{
    Error, Request, Step,
    measure::{Measured, measure},
    record::Record,
    run,
    scenario::Scenario,
    stage::Stage,
    summary::Requests,
    targets::Target,
    traffic::Ids,
};
use hdrhistogram::Histogram;
use std::sync::Arc;

/// One pipeline on its store, warm, with what it was asked so far.
pub(super) struct Contestant<'a> {
    stage: &'a mut Stage,
    request: &'a Request,
    name: String,
    target: Arc<dyn Target>,
    records: Vec<Arc<Record>>,
    requests: Requests,
    turns: u32,
}

/// What a turn came to.
pub(super) struct Turn {
    pub(super) measured: Measured,
    /// Gather and decision of each request, microseconds.
    pub(super) gathered: Histogram<u64>,
}

impl<'a> Contestant<'a> {
    /// Makes the store when it is not there yet, and starts the pipeline.
    pub(super) async fn ready(stage: &'a mut Stage, request: &'a Request, name: &str) -> Result<Self, Error> {
        // A pipeline needs no record: what it answers goes to the seat that came with the request.
        let none = Scenario { duration: std::time::Duration::ZERO, warm_up: std::time::Duration::ZERO, ..request.scenario.clone() };
        let target = stage.target(request, &run::record(&none, Ids::new(name))).await?;
        Ok(Self { stage, request, name: name.to_owned(), target, records: Vec::new(), requests: Requests::default(), turns: 0 })
    }

    /// Sends it a load, with ids and chances of its own.
    pub(super) async fn turn(&mut self, scenario: &Scenario, step: &mut impl FnMut(Step<'_>)) -> Result<Turn, Error> {
        self.turns += 1;
        let scenario = Scenario { seed: scenario.seed.wrapping_add(u64::from(self.turns)), ..scenario.clone() };
        let record = run::record(&scenario, Ids::new(&format!("{}.{}", self.name, self.turns)));
        let (_, pace) = run::send(&scenario, &record, Arc::clone(&self.target), step).await?;
        let measured = measure(&scenario, &record, &pace);
        self.requests.join(&measured.requests);
        let gathered = record.gathered();
        self.records.push(record);
        Ok(Turn { measured, gathered })
    }

    /// Ends the pipeline and proves from the store that everything was right.
    pub(super) async fn finish(self) -> Result<Sound, Without> {
        let Self { stage, request, name, target, records, requests, .. } = self;
        drop(target);
        let settled = stage.settle().await?.in_time;
        let records: Vec<&Record> = records.iter().map(Arc::as_ref).collect();
        let proof = run::prove(request, stage, &name, &records).await?.unwrap_or_default();
        let mut faults: Vec<String> = proof.faults().map(|(what, count)| format!("{count} {what}")).collect();
        for (count, what) in [
            (requests.lost, "requests had no answer"),
            (requests.duplicated, "requests had more than one answer"),
            (requests.unexpected, "answers were not what was asked for"),
            (requests.unsent, "requests could not be sent"),
            (requests.errors, "requests were declined for reasons of ours"),
            (u64::from(proof.decisions == 0), "runs decided nothing"),
            (u64::from(!settled), "pipelines did not end"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        if !faults.is_empty() {
            return Err(Without::Wrong(faults.join("; ")));
        }
        let target = run::target_line(request, stage).await?;
        Ok(Sound { durability: target.durability.map(|durability| (stage.store().name().to_owned(), durability)) })
    }
}

/// What is known after everything was right.
pub(super) struct Sound {
    pub(super) durability: Option<(String, String)>,
}
