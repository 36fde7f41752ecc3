"""Tasks that are known here: what each is called, of which category it is, and what goes into its models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """`modality`: what goes in."""

    title: str
    category: str
    modality: str


CATEGORIES = {
    "nlp": "Language",
    "vision": "Vision",
    "audio": "Audio",
    "multimodal": "Several at once",
    "other": "Other",
}
TASKS = {
    "text-embedding": Task("Text embedding", "nlp", "text"),
    "text-generation": Task("Text generation", "nlp", "text"),
    "text-classification": Task("Text classification", "nlp", "text"),
    "sentiment-analysis": Task("Sentiment analysis", "nlp", "text"),
    "named-entity-recognition": Task("Named entities", "nlp", "text"),
    "question-answering": Task("Question answering", "nlp", "text"),
    "summarization": Task("Summarization", "nlp", "text"),
    "translation": Task("Translation", "nlp", "text"),
    "language-detection": Task("Language detection", "nlp", "text"),
    "reranking": Task("Reranking", "nlp", "text"),
    "image-classification": Task("Image classification", "vision", "image"),
    "object-detection": Task("Object detection", "vision", "image"),
    "image-segmentation": Task("Image segmentation", "vision", "image"),
    "text-detection": Task("Text detection", "vision", "image"),
    "text-recognition": Task("Text recognition", "vision", "image"),
    "face-detection": Task("Face detection", "vision", "image"),
    "pose-estimation": Task("Pose estimation", "vision", "image"),
    "depth-estimation": Task("Depth estimation", "vision", "image"),
    "image-embedding": Task("Image embedding", "vision", "image"),
    "super-resolution": Task("Super-resolution", "vision", "image"),
    "video-classification": Task("Video classification", "vision", "video"),
    "speech-to-text": Task("Speech to text", "audio", "audio"),
    "text-to-speech": Task("Text to speech", "audio", "text"),
    "voice-activity-detection": Task("Voice activity detection", "audio", "audio"),
    "audio-classification": Task("Audio classification", "audio", "audio"),
    "speaker-verification": Task("Speaker verification", "audio", "audio"),
    "image-captioning": Task("Image captioning", "multimodal", "image"),
    "visual-question-answering": Task("Visual question answering", "multimodal", "image"),
    "text-to-image": Task("Text to image", "multimodal", "text"),
    "tabular-classification": Task("Tabular classification", "other", "tabular"),
    "tabular-regression": Task("Tabular regression", "other", "tabular"),
    "time-series-forecasting": Task("Time series forecasting", "other", "tabular"),
    "file-type-detection": Task("File type detection", "other", ""),
}
_OF_CATEGORY = {"nlp": "text", "vision": "image", "audio": "audio"}


def modality(category: str, task: str) -> str:
    """What goes in; empty where nothing is known of the task and its category does not say."""
    known = TASKS.get(task)
    return known.modality if known else _OF_CATEGORY.get(category, "")
