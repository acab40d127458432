//! One reader of an output: it reads for itself until it is up to date, and from the feed from then on.

use std::collections::VecDeque;
use std::sync::Arc;

use cortado_protocol::JobId;
use cortado_protocol::client::ClientError;
use cortado_protocol::stream::{Cursor, Place};
use cortado_report::News;
use tokio::sync::watch;

use super::feed::{Feed, Next, Sent, rows};
use crate::clients::Inside;

/// See the module's description.
pub(super) struct Reader {
    inside: Inside,
    job: JobId,
    output: String,
    feed: Arc<Feed>,
    news: watch::Receiver<u64>,
    /// Where it stands, and what it has read for itself but not passed on.
    cursor: Cursor,
    own: News,
    waiting: VecDeque<Arc<Sent>>,
    /// The next row of the feed, once it is up to date.
    at: Option<u64>,
    ended: bool,
}

impl Reader {
    /// Reads an output after a cursor; without one, what its feed has kept.
    pub(super) fn new(
        inside: Inside,
        (job, output): (JobId, String),
        feed: Arc<Feed>,
        after: Option<Cursor>,
    ) -> Self {
        let at = after.is_none().then(|| feed.range().0);
        let cursor = after.unwrap_or_default();
        let news = feed.news();
        let own = News::after(cursor.clone());
        let waiting = VecDeque::new();
        Self { inside, job, output, feed, news, cursor, own, waiting, at, ended: false }
    }

    /// The next row, as soon as there is one; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Result<Arc<Sent>, ClientError>> {
        loop {
            if let Some(row) = self.waiting.pop_front() {
                return Some(Ok(row));
            }
            if self.ended {
                return None;
            }
            let Some(at) = self.at else {
                if let Err(error) = self.catch_up().await {
                    return Some(Err(error));
                }
                continue;
            };
            // Before the look, so that nothing is missed.
            self.news.borrow_and_update();
            match self.feed.next(at) {
                Next::Row(row) => {
                    self.at = Some(at + 1);
                    let Place { edge, batch, position } = row.place;
                    let is_known = self.cursor.of(edge) > (batch, position);
                    if let Some(cursor) = Cursor::from_text(&row.cursor) {
                        self.cursor.join(&cursor);
                    }
                    if !is_known {
                        return Some(Ok(row));
                    }
                }
                Next::Later => {
                    // The feed, which this reader has, keeps the sender.
                    let _ = self.news.changed().await;
                }
                Next::Gone => {
                    self.at = None;
                    self.own = News::after(self.cursor.clone());
                }
                Next::Ended => return None,
            }
        }
    }

    /// Reads for itself.
    async fn catch_up(&mut self) -> Result<(), ClientError> {
        let end = self.feed.range().1;
        let after = self.cursor.clone();
        let answer = rows(&self.inside, self.job, &self.output, after).await?;
        let lines = self.own.take(answer.rows, &answer.cursor);
        self.waiting.extend(lines.into_iter().map(|line| Arc::new(Sent::new(line))));
        if answer.ended {
            self.ended = true;
        } else if answer.cursor == self.cursor {
            // What comes now is in the feed, behind what it had before this answer.
            self.at = Some(end);
        }
        self.cursor = answer.cursor;
        Ok(())
    }
}
