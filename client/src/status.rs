//! How a job stands.

use std::time::Duration;

use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobState, JobStatus};

use crate::cluster::unexpected;
use crate::{Cluster, Error};

/// How a job stands, at once or after news within `wait`.
///
/// # Errors
/// As [`Cluster::request`].
pub async fn status(cluster: &Cluster, job: JobId, wait: Duration) -> Result<JobStatus, Error> {
    let wait_ms = wait.as_millis() as u32;
    match cluster.request(&ClientRequest::Status { job, wait_ms }).await? {
        (ClientResponse::Status(status), _) => Ok(status),
        (other, _) => Err(unexpected(&other)),
    }
}

/// The error that the end of a job means; none while it runs or if it is done.
#[must_use]
pub fn ended(status: &JobStatus) -> Option<Error> {
    match &status.state {
        JobState::Failed { message } => {
            Some(Error::Ended(format!("job {} failed: {message}", status.job)))
        }
        JobState::Cancelled => Some(Error::Ended(format!("job {} was cancelled", status.job))),
        _ => None,
    }
}
