//! A plan as it is written (TOML).

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) stream: toml::Spanned<StreamTable>,
    pub(super) schemas: Option<toml::Spanned<SchemasTable>>,
    pub(super) windows: Vec<toml::Spanned<WindowTable>>,
    #[serde(default)]
    pub(super) rollups: Vec<toml::Spanned<RollupTable>>,
    #[serde(default)]
    pub(super) alerts: Vec<toml::Spanned<AlertTable>>,
    pub(super) audit: Option<toml::Spanned<AuditTable>>,
    #[serde(default)]
    pub(super) webhooks: Vec<toml::Spanned<WebhookTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookTable {
    pub(super) output: String,
    pub(super) webhook: String,
    pub(super) retry: Option<super::Retry>,
    pub(super) first: Option<String>,
    pub(super) longest: Option<String>,
    pub(super) attempts: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertTable {
    pub(super) output: String,
    pub(super) window: String,
    pub(super) history: Option<u32>,
    pub(super) least: Option<u32>,
    pub(super) probability: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamTable {
    pub(super) id: String,
    pub(super) time: String,
    #[serde(default)]
    pub(super) lateness: Option<String>,
    pub(super) idle: Option<String>,
    pub(super) skew: Option<String>,
    pub(super) future: Option<String>,
    pub(super) horizon: Option<String>,
    pub(super) retention: Option<String>,
    pub(super) seal: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemasTable {
    pub(super) envelope: Option<String>,
    pub(super) payload: Option<PayloadTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadTable {
    pub(super) field: String,
    pub(super) file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollupTable {
    pub(super) output: String,
    pub(super) every: String,
    pub(super) per: Vec<String>,
    pub(super) by: String,
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowTable {
    pub(super) output: String,
    pub(super) every: String,
    pub(super) group_by: Vec<String>,
    pub(super) stats: Option<String>,
    #[serde(default)]
    pub(super) ids: bool,
}

/// What an audit file has of each event.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditTable {
    #[serde(default)]
    pub(super) columns: Vec<String>,
    pub(super) payload: Option<String>,
}
