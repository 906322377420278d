"""Asset `version_report`: one HTML page per version.

Belongs here: gathering what the page shows. Does not belong here: the page.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import room
from saerl_assets.report.page import ReportInputs, render_report
from saerl_assets.report.style import as_markdown
from saerl_assets.report.versions import figure_version_report
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.files import file_digest, write_atomically
