"""What FastAPI itself needs to take in a picture: the floor that accepting a job is measured against."""

from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, UploadFile

app = FastAPI()


@app.post("/floor", status_code=202)
async def floor(image: Annotated[UploadFile, File()]) -> dict[str, int]:
    """Read the picture, say how long it is."""
    return {"bytes": len(await image.read())}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=0, log_level="info", access_log=False)
