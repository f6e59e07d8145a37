"""Deploys the alarm's automation (conf/alarm.yaml) with its receiver: `python -m tasks.services.alarm`, which `make up`
calls.

The receiver is the notification block `custom-webhook/sgpo-alarm`, made from SGPO_ALARM_URL. The address, which may
hold a token, is kept as a secret of that block and written nowhere else. Without it a block that is there stays.
"""

from __future__ import annotations

import os
from uuid import UUID

import yaml
from prefect import get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from tasks.paths import REPOSITORY

DEFINITION = REPOSITORY / "conf" / "alarm.yaml"
BLOCK = "sgpo-alarm"
URL_VARIABLE = "SGPO_ALARM_URL"


def deploy_alarm() -> str:
    """Makes or replaces the automation; returns the line that says who is told."""
    with get_client(sync_client=True) as client:
        receiver = _receiver(client)
        if receiver is None:
            return f"alarm: nobody is told of a regression ({URL_VARIABLE}=https://... names a webhook)"
        definition = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))
        for action in definition["actions"]:
            action["block_document_id"] = str(receiver)
        for old in client.read_automations_by_name(definition["name"]):
            client.delete_automation(old.id)
        client.create_automation(AutomationCore.model_validate(definition))
    return f"alarm: a regression notifies the webhook of block custom-webhook/{BLOCK}"


def _receiver(client: SyncPrefectClient) -> UUID | None:
    if url := os.environ.get(URL_VARIABLE):
        block = CustomWebhookNotificationBlock(
            name=BLOCK,
            url="{{url}}",
            json_data={"text": "{{subject}}\n{{body}}"},
            secrets={"url": url},
        )
        return UUID(str(block.save(BLOCK, overwrite=True)))
    try:
        return client.read_block_document_by_name(BLOCK, "custom-webhook").id
    except ObjectNotFound:
        return None


if __name__ == "__main__":
    print(deploy_alarm())
