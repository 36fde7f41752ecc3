"""Mail: written within the transaction that causes it, sent by SMTP afterwards, or laid into a folder where there is no
SMTP server. What is sent again after a death has the same Message-ID. When to write is the services' business."""
