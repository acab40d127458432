//! The state of a job.

use std::time::Duration;

use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobState, JobStatus};

use crate::cluster::unexpected;
use crate::{Cluster, Error};

/// The state of a job: at once, or after a change within `wait`.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn status(cluster: &Cluster, job: JobId, wait: Duration) -> Result<JobStatus, Error> {
    let wait_ms = wait.as_millis() as u32;
    status_after(cluster, &ClientRequest::Status { job, wait_ms }).await
}

/// The state of a job that a node answers when it has done what a request says.
pub(crate) async fn status_after(
    cluster: &Cluster,
    request: &ClientRequest,
) -> Result<JobStatus, Error> {
    match cluster.request(request).await? {
        (ClientResponse::Status(status), _) => Ok(status),
        (other, _) => Err(unexpected(&other)),
    }
}

/// The error for a job that failed or was cancelled; `None` while it runs or if it is done.
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
