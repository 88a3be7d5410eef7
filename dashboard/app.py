"""The dashboard: `streamlit run dashboard/app.py`."""

from aevorium.dashboard.app import main  # not found? Type: python start.py install

main()
